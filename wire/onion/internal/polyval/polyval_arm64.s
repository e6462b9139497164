//go:build !purego

#include "textflag.h"

// An element fills one V register, lo in the lower half. A sum of products, not yet reduced, is the 256-bit
// number HI:LO plus MID in the middle, in Karatsuba's form: until REDUCE, MID lacks LO and HI.

#define LO V0
#define MID V1
#define HI V2
#define POLY V3 // lower half: x^63 + x^62 + x^57, which are the modulus's x^127 + x^126 + x^121
#define ZERO V4
#define SUM V5
#define T0 V6
#define T1 V7

// Offset in Key of fold[0].
#define FOLDS 128

#define CONSTANTS \
	MOVD $0xc200000000000000, R12; \
	VMOV R12, POLY.D[0]; \
	VEOR ZERO.B16, ZERO.B16, ZERO.B16

#define CLEAR \
	VEOR LO.B16, LO.B16, LO.B16; \
	VEOR MID.B16, MID.B16, MID.B16; \
	VEOR HI.B16, HI.B16, HI.B16

// FOLD sets both halves of F to the sum of E's halves.
#define FOLD(E, F) \
	VEXT $8, E.B16, E.B16, F.B16; \
	VEOR E.B16, F.B16, F.B16

// ADD_OUTER adds the products of X's and P's low halves, and of their high halves.
#define ADD_OUTER(X, P) \
	VPMULL  X.D1, P.D1, T1.Q1; \
	VEOR    T1.B16, LO.B16, LO.B16; \
	VPMULL2 X.D2, P.D2, T1.Q1; \
	VEOR    T1.B16, HI.B16, HI.B16

// ADD_LOWER adds X * P to HI:MID:LO, where the sum of P's halves is the lower half of F.
#define ADD_LOWER(X, P, F) \
	FOLD(X, T0); \
	VPMULL T0.D1, F.D1, T0.Q1; \
	VEOR   T0.B16, MID.B16, MID.B16; \
	ADD_OUTER(X, P)

// ADD_UPPER is ADD_LOWER with the sum of P's halves in the upper half of F.
#define ADD_UPPER(X, P, F) \
	FOLD(X, T0); \
	VPMULL2 T0.D2, F.D2, T0.Q1; \
	VEOR    T0.B16, MID.B16, MID.B16; \
	ADD_OUTER(X, P)

// REDUCE sets HI to (HI:LO + MID in the middle) * x^-128, as reduce in generic.go. It spoils LO, MID, T0.
#define REDUCE \
	VEOR LO.B16, MID.B16, MID.B16; \
	VEOR HI.B16, MID.B16, MID.B16; \
	VEXT $8, MID.B16, ZERO.B16, T0.B16; \
	VEOR T0.B16, LO.B16, LO.B16; \
	VEXT $8, ZERO.B16, MID.B16, MID.B16; \
	VEOR MID.B16, HI.B16, HI.B16; \
	REDUCE_WIDE

// REDUCE_WIDE is REDUCE of HI:LO alone. Montgomery twice: the lower half of LO times the modulus clears that
// half, and the swap moves on by 64 bits, adding the product by x^128 at once.
#define REDUCE_WIDE \
	VPMULL LO.D1, POLY.D1, T0.Q1; \
	VEXT   $8, LO.B16, LO.B16, LO.B16; \
	VEOR   T0.B16, LO.B16, LO.B16; \
	VPMULL LO.D1, POLY.D1, T0.Q1; \
	VEXT   $8, LO.B16, LO.B16, LO.B16; \
	VEOR   LO.B16, HI.B16, HI.B16; \
	VEOR   T0.B16, HI.B16, HI.B16

// func updateAsm(k *Key, acc *[BlockSize]byte, data []byte, last *[BlockSize]byte)
TEXT ·updateAsm(SB), NOSPLIT, $0-48
	MOVD k+0(FP), R0
	MOVD acc+8(FP), R1
	MOVD data_base+16(FP), R2
	MOVD data_len+24(FP), R3
	MOVD last+40(FP), R4
	VLD1 (R1), [SUM.B16]
	CONSTANTS

	SUBS $128, R3
	BLO  rest

	// V16 to V23 hold H^1 to H^8, V24 to V27 the sums of their halves, two in each.
	MOVD   R0, R5
	VLD1.P 64(R5), [V16.B16, V17.B16, V18.B16, V19.B16]
	VLD1.P 64(R5), [V20.B16, V21.B16, V22.B16, V23.B16]
	VLD1   (R5), [V24.B16, V25.B16, V26.B16, V27.B16]

eight:
	// The first block comes last: it waits for the sum, and the other seven need not.
	VLD1.P 64(R2), [V8.B16, V9.B16, V10.B16, V11.B16]
	VLD1.P 64(R2), [V12.B16, V13.B16, V14.B16, V15.B16]
	CLEAR
	ADD_LOWER(V9, V22, V27)
	ADD_UPPER(V10, V21, V26)
	ADD_LOWER(V11, V20, V26)
	ADD_UPPER(V12, V19, V25)
	ADD_LOWER(V13, V18, V25)
	ADD_UPPER(V14, V17, V24)
	ADD_LOWER(V15, V16, V24)
	VEOR   SUM.B16, V8.B16, V8.B16
	ADD_UPPER(V8, V23, V27)
	REDUCE
	VMOV   HI.B16, SUM.B16
	SUBS   $128, R3
	BHS    eight

rest:
	// R5 counts the blocks left, last among them: up to eight, which share a reduction too.
	ADD $128, R3
	LSR $4, R3
	MOVD R3, R5
	CBZ R4, count
	ADD $1, R5

count:
	CBZ R5, done
	SUB $1, R5
	ADD R5<<4, R0, R8 // R8 and R9 go down from H^(R5+1) to H^1
	ADD R5<<3, R0, R9
	ADD $FOLDS, R9
	CLEAR
	CBZ R3, padded

whole:
	VLD1.P 16(R2), [V8.B16]
	VLD1   (R8), [V16.B16]
	FMOVD  (R9), F24
	VEOR   SUM.B16, V8.B16, V8.B16
	VEOR   SUM.B16, SUM.B16, SUM.B16
	ADD_LOWER(V8, V16, V24)
	SUB    $16, R8
	SUB    $8, R9
	SUB    $1, R3
	CBNZ   R3, whole
	CBZ    R4, reduce

padded:
	VLD1  (R4), [V8.B16]
	VLD1  (R8), [V16.B16]
	FMOVD (R9), F24
	VEOR  SUM.B16, V8.B16, V8.B16
	ADD_LOWER(V8, V16, V24)

reduce:
	REDUCE
	VMOV HI.B16, SUM.B16

done:
	VST1 [SUM.B16], (R1)
	RET

// func dotAsm(acc *[BlockSize]byte, h *[BlockSize]byte)
TEXT ·dotAsm(SB), NOSPLIT, $0-16
	MOVD acc+0(FP), R1
	MOVD h+8(FP), R0
	CONSTANTS
	VLD1 (R1), [V8.B16]
	VLD1 (R0), [V16.B16]
	FOLD(V16, V24)
	CLEAR
	ADD_LOWER(V8, V16, V24)
	REDUCE
	VST1 [HI.B16], (R1)
	RET

// SQUARE sets HI to dot(E, E). Squaring has no middle product: over GF(2) it cancels.
#define SQUARE(E) \
	VPMULL  E.D1, E.D1, LO.Q1; \
	VPMULL2 E.D2, E.D2, HI.Q1; \
	REDUCE_WIDE

// MULTIPLY sets HI to dot(A, B), where FA and FB are the sums of their halves.
#define MULTIPLY(A, FA, B, FB) \
	VPMULL  A.D1, B.D1, LO.Q1; \
	VPMULL2 A.D2, B.D2, HI.Q1; \
	VPMULL  FA.D1, FB.D1, MID.Q1; \
	REDUCE

// PAIR sets F to the sums of A's and B's halves, A's in the lower half.
#define PAIR(A, B, F) \
	VZIP1 B.D2, A.D2, F.D2; \
	VZIP2 B.D2, A.D2, T0.D2; \
	VEOR  T0.B16, F.B16, F.B16

// func initAsm(k *Key, h *[BlockSize]byte)
//
// Three products deep: H^2, then H^3 and H^4, then H^5 to H^8 from H^4. The products of a level are
// independent, and the processor overlaps them.
TEXT ·initAsm(SB), NOSPLIT, $0-16
	MOVD k+0(FP), R0
	MOVD h+8(FP), R1
	CONSTANTS
	VLD1 (R1), [V16.B16]
	FOLD(V16, V8)
	SQUARE(V16)
	VMOV HI.B16, V17.B16
	FOLD(V17, V9)
	SQUARE(V17)
	VMOV HI.B16, V19.B16
	FOLD(V19, V11)
	MULTIPLY(V16, V8, V17, V9)
	VMOV HI.B16, V18.B16
	FOLD(V18, V10)
	SQUARE(V19)
	VMOV HI.B16, V23.B16
	MULTIPLY(V16, V8, V19, V11)
	VMOV HI.B16, V20.B16
	MULTIPLY(V17, V9, V19, V11)
	VMOV HI.B16, V21.B16
	MULTIPLY(V18, V10, V19, V11)
	VMOV HI.B16, V22.B16
	PAIR(V16, V17, V24)
	PAIR(V18, V19, V25)
	PAIR(V20, V21, V26)
	PAIR(V22, V23, V27)
	VST1.P [V16.B16, V17.B16, V18.B16, V19.B16], 64(R0)
	VST1.P [V20.B16, V21.B16, V22.B16, V23.B16], 64(R0)
	VST1   [V24.B16, V25.B16, V26.B16, V27.B16], (R0)
	RET
