//go:build !purego

package polyval

import "golang.org/x/sys/cpu"

// accelerated says whether initAsm, updateAsm and dotAsm may be called. PMULL is the only one of their
// instructions that is not part of every arm64 processor.
var accelerated = cpu.ARM64.HasPMULL
