//go:build !purego

#include "textflag.h"

// An element fills one X register, lo in the lower half. A sum of products, not yet reduced, is the 256-bit
// number HI:LO plus MID in the middle, in Karatsuba's form: until REDUCE, MID lacks LO and HI.

#define LO X0
#define MID X1
#define HI X2
#define T0 X3
#define T1 X4
#define T2 X5
#define T3 X6
#define POLY X7 // lower half: x^63 + x^62 + x^57, which are the modulus's x^127 + x^126 + x^121
#define SUM X8

// Offsets in Key: power[i] is H^(i+1), fold[i] is its halves' sum.
#define POWER(i) ((i)*16)
#define FOLD(i) (128+(i)*8)

DATA poly<>+0(SB)/8, $0xc200000000000000
DATA poly<>+8(SB)/8, $0
GLOBL poly<>(SB), RODATA|NOPTR, $16

#define CLEAR \
	PXOR LO, LO; \
	PXOR MID, MID; \
	PXOR HI, HI

// ADD_PRODUCT adds T0 * T1 to HI:MID:LO, with the sum of T1's halves in the lower half of T2. It spoils T0 and T3.
#define ADD_PRODUCT \
	PSHUFD $0x4e, T0, T3; \
	PXOR T0, T3; \
	PCLMULQDQ $0x00, T2, T3; \
	PXOR T3, MID; \
	MOVO T0, T3; \
	PCLMULQDQ $0x00, T1, T0; \
	PXOR T0, LO; \
	PCLMULQDQ $0x11, T1, T3; \
	PXOR T3, HI

// REDUCE sets HI to (HI:LO + MID in the middle) * x^-128, as reduce in generic.go. It spoils LO, MID, T0.
#define REDUCE \
	PXOR LO, MID; \
	PXOR HI, MID; \
	MOVO MID, T0; \
	PSLLDQ $8, T0; \
	PXOR T0, LO; \
	PSRLDQ $8, MID; \
	PXOR MID, HI; \
	REDUCE_WIDE

// REDUCE_WIDE is REDUCE of HI:LO alone. Montgomery twice: the lower half of LO times the modulus clears that
// half, and the swap moves on by 64 bits, adding the product by x^128 at once.
#define REDUCE_WIDE \
	MOVO POLY, T0; \
	PCLMULQDQ $0x00, LO, T0; \
	PSHUFD $0x4e, LO, LO; \
	PXOR T0, LO; \
	MOVO POLY, T0; \
	PCLMULQDQ $0x00, LO, T0; \
	PSHUFD $0x4e, LO, LO; \
	PXOR LO, HI; \
	PXOR T0, HI

// ADD_BLOCK adds X_(i+1) * H^(8-i), one of the eight blocks at SI.
#define ADD_BLOCK(i) \
	MOVOU (i*16)(SI), T0; \
	MOVOU POWER(7-i)(DI), T1; \
	MOVQ FOLD(7-i)(DI), T2; \
	ADD_PRODUCT

// func updateAsm(k *Key, acc *[BlockSize]byte, data []byte, last *[BlockSize]byte)
TEXT ·updateAsm(SB), NOSPLIT, $0-48
	MOVQ k+0(FP), DI
	MOVQ acc+8(FP), DX
	MOVQ data_base+16(FP), SI
	MOVQ data_len+24(FP), CX
	MOVQ last+40(FP), BX
	MOVOU (DX), SUM
	MOVOU poly<>(SB), POLY

	SUBQ $128, CX
	JB   rest

eight:
	// The first block comes last: it waits for the sum, and the other seven need not.
	CLEAR
	ADD_BLOCK(1)
	ADD_BLOCK(2)
	ADD_BLOCK(3)
	ADD_BLOCK(4)
	ADD_BLOCK(5)
	ADD_BLOCK(6)
	ADD_BLOCK(7)
	MOVOU (SI), T0
	PXOR  SUM, T0
	MOVOU POWER(7)(DI), T1
	MOVQ  FOLD(7)(DI), T2
	ADD_PRODUCT
	REDUCE
	MOVO  HI, SUM
	ADDQ  $128, SI
	SUBQ  $128, CX
	JAE   eight

rest:
	// AX counts the blocks left, last among them: up to eight, which share a reduction too.
	ADDQ  $128, CX
	SHRQ  $4, CX
	MOVQ  CX, AX
	TESTQ BX, BX
	JZ    count
	INCQ  AX

count:
	TESTQ AX, AX
	JZ    done
	LEAQ  POWER(0)(DI)(AX*8), R8 // R8 and R9 go down from H^AX to H^1
	LEAQ  (R8)(AX*8), R8
	LEAQ  FOLD(0)(DI)(AX*8), R9
	CLEAR
	TESTQ CX, CX
	JZ    padded

whole:
	MOVOU (SI), T0
	PXOR  SUM, T0
	PXOR  SUM, SUM
	MOVOU -16(R8), T1
	MOVQ  -8(R9), T2
	ADD_PRODUCT
	ADDQ  $16, SI
	SUBQ  $16, R8
	SUBQ  $8, R9
	DECQ  CX
	JNZ   whole

	TESTQ BX, BX
	JZ    reduce

padded:
	MOVOU (BX), T0
	PXOR  SUM, T0
	MOVOU POWER(0)(DI), T1
	MOVQ  FOLD(0)(DI), T2
	ADD_PRODUCT

reduce:
	REDUCE
	MOVO HI, SUM

done:
	MOVOU SUM, (DX)
	RET

// func dotAsm(acc *[BlockSize]byte, h *[BlockSize]byte)
TEXT ·dotAsm(SB), NOSPLIT, $0-16
	MOVQ acc+0(FP), DX
	MOVQ h+8(FP), DI
	MOVOU poly<>(SB), POLY
	MOVOU (DX), T0
	MOVOU (DI), T1
	PSHUFD $0x4e, T1, T2
	PXOR  T1, T2
	CLEAR
	ADD_PRODUCT
	REDUCE
	MOVOU HI, (DX)
	RET

// STORE writes H^(i+1), in E, to the key and sets F to its halves' sum.
#define STORE(i, E, F) \
	MOVOU E, POWER(i)(DI); \
	PSHUFD $0x4e, E, F; \
	PXOR E, F; \
	MOVQ F, FOLD(i)(DI)

// SQUARE sets HI to dot(E, E). Squaring has no middle product: over GF(2) it cancels.
#define SQUARE(E) \
	MOVO E, LO; \
	MOVO E, HI; \
	PCLMULQDQ $0x00, E, LO; \
	PCLMULQDQ $0x11, E, HI; \
	REDUCE_WIDE

// MULTIPLY sets HI to dot(A, B), where FA and FB are the sums of their halves.
#define MULTIPLY(A, FA, B, FB) \
	MOVO A, LO; \
	MOVO A, HI; \
	MOVO FA, MID; \
	PCLMULQDQ $0x00, B, LO; \
	PCLMULQDQ $0x11, B, HI; \
	PCLMULQDQ $0x00, FB, MID; \
	REDUCE

// func initAsm(k *Key, h *[BlockSize]byte)
//
// Three products deep: H^2, then H^3 and H^4, then H^5 to H^8 from H^4. The products of a level are
// independent, and the processor overlaps them.
TEXT ·initAsm(SB), NOSPLIT, $0-16
	MOVQ k+0(FP), DI
	MOVQ h+8(FP), SI
	MOVOU poly<>(SB), POLY
	MOVOU (SI), X8
	STORE(0, X8, X12)
	SQUARE(X8)
	MOVO HI, X9
	STORE(1, X9, X13)
	SQUARE(X9)
	MOVO HI, X11
	STORE(3, X11, X15)
	MULTIPLY(X8, X12, X9, X13)
	MOVO HI, X10
	STORE(2, X10, X14)
	SQUARE(X11)
	STORE(7, HI, T1)
	MULTIPLY(X8, X12, X11, X15)
	STORE(4, HI, T1)
	MULTIPLY(X9, X13, X11, X15)
	STORE(5, HI, T1)
	MULTIPLY(X10, X14, X11, X15)
	STORE(6, HI, T1)
	RET
