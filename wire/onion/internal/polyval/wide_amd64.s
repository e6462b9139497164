//go:build !purego

#include "textflag.h"

// The eight blocks of a step, two in each Y register: X_1 and X_2 with H^8 and H^7, and so on. LO, MID and HI are
// as in polyval_amd64.s, a sum for each lane.

#define LO Y0
#define MID Y1
#define HI Y2
#define T0 Y3
#define T1 Y4
#define POLY X5 // as in polyval_amd64.s
#define SUM X6
#define SUM_Y Y6 // SUM over zeros: each VEX instruction that writes SUM clears the upper lane

// LOAD_POWERS sets P, whose lower lane is Q, to H^(i+2) and H^(i+1), and F's lower halves to the sums of their
// halves. It loads each by itself: the processor hands on what initAsm has just stored only to loads of that size.
#define LOAD_POWERS(i, P, Q, F) \
	VMOVDQU (i*16+16)(DI), Q; \
	VINSERTI128 $1, (i*16)(DI), P, P; \
	VPSHUFD $0x4e, P, F; \
	VPXOR P, F, F

// ADD_PRODUCTS adds T0 * P to HI:MID:LO in each lane. It spoils T0 and T1.
#define ADD_PRODUCTS(P, F) \
	VPSHUFD $0x4e, T0, T1; \
	VPXOR T0, T1, T1; \
	VPCLMULQDQ $0x00, F, T1, T1; \
	VPXOR T1, MID, MID; \
	VPCLMULQDQ $0x00, P, T0, T1; \
	VPXOR T1, LO, LO; \
	VPCLMULQDQ $0x11, P, T0, T1; \
	VPXOR T1, HI, HI

// func updateWide(k *Key, acc *[BlockSize]byte, data []byte)
TEXT ·updateWide(SB), NOSPLIT, $0-40
	MOVQ k+0(FP), DI
	MOVQ acc+8(FP), DX
	MOVQ data_base+16(FP), SI
	MOVQ data_len+24(FP), CX
	VMOVDQU (DX), SUM
	MOVQ $0xc200000000000000, AX
	VMOVQ AX, POLY
	LOAD_POWERS(6, Y7, X7, Y11)
	LOAD_POWERS(4, Y8, X8, Y12)
	LOAD_POWERS(2, Y9, X9, Y13)
	LOAD_POWERS(0, Y10, X10, Y14)

eight:
	// The first two blocks come last: they wait for the sum, and the other six need not.
	VPXOR LO, LO, LO
	VPXOR MID, MID, MID
	VPXOR HI, HI, HI
	VMOVDQU 32(SI), T0
	ADD_PRODUCTS(Y8, Y12)
	VMOVDQU 64(SI), T0
	ADD_PRODUCTS(Y9, Y13)
	VMOVDQU 96(SI), T0
	ADD_PRODUCTS(Y10, Y14)
	VPXOR (SI), SUM_Y, T0
	ADD_PRODUCTS(Y7, Y11)

	// Both lanes into one, and then REDUCE of polyval_amd64.s.
	VPXOR LO, MID, MID
	VPXOR HI, MID, MID
	VEXTRACTI128 $1, MID, X3
	VPXOR X3, X1, X1
	VEXTRACTI128 $1, LO, X3
	VPXOR X3, X0, X0
	VEXTRACTI128 $1, HI, X3
	VPXOR X3, X2, X2
	VPSLLDQ $8, X1, X3
	VPXOR X3, X0, X0
	VPSRLDQ $8, X1, X1
	VPXOR X1, X2, X2
	VPCLMULQDQ $0x00, X0, POLY, X3
	VPSHUFD $0x4e, X0, X0
	VPXOR X3, X0, X0
	VPCLMULQDQ $0x00, X0, POLY, X3
	VPSHUFD $0x4e, X0, X0
	VPXOR X0, X2, X2
	VPXOR X3, X2, SUM
	ADDQ $128, SI
	SUBQ $128, CX
	JNZ eight

	VMOVDQU SUM, (DX)
	VZEROUPPER
	RET

// func hasVPCLMULQDQ() bool
//
// Leaf 7, subleaf 0: bit 10 of CX.
TEXT ·hasVPCLMULQDQ(SB), NOSPLIT, $0-1
	MOVL $7, AX
	XORL CX, CX
	CPUID
	SHRL $10, CX
	ANDL $1, CX
	MOVB CX, ret+0(FP)
	RET
