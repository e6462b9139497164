//go:build !purego

package polyval

import "golang.org/x/sys/cpu"

// accelerated says whether initAsm, updateAsm and dotAsm may be called. PCLMULQDQ is the only one of their
// instructions that is not part of every amd64 processor.
var accelerated = cpu.X86.HasPCLMULQDQ

// wide says whether updateWide may be called. HasAVX2 says too that the operating system keeps the Y registers.
var wide = accelerated && cpu.X86.HasAVX2 && hasVPCLMULQDQ()

// hasVPCLMULQDQ reports whether the processor multiplies in Y registers too. It must have AVX2. (x/sys/cpu knows
// of the instruction, but looks for it with AVX-512 only.)
func hasVPCLMULQDQ() bool

// updateWide absorbs data, one or more times eight blocks.
//
//go:noescape
func updateWide(k *Key, acc *[BlockSize]byte, data []byte)
