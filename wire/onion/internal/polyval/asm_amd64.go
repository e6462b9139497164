//go:build !purego

package polyval

import "golang.org/x/sys/cpu"

// accelerated says whether initAsm, updateAsm and dotAsm may be called. PCLMULQDQ is the only one of their
// instructions that is not part of every amd64 processor.
var accelerated = cpu.X86.HasPCLMULQDQ
