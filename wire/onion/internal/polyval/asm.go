//go:build !purego && (amd64 || arm64)

package polyval

// The three functions below are in polyval_amd64.s and polyval_arm64.s. They need the instructions that
// accelerated stands for. On another machine, the arm64 ones are tested with
//
//	CGO_ENABLED=0 GOARCH=arm64 go test -exec qemu-aarch64 .

// initAsm is Init.
//
//go:noescape
func initAsm(k *Key, h *[BlockSize]byte)

// updateAsm absorbs data, whole blocks, and then the block last unless it is nil.
//
//go:noescape
func updateAsm(k *Key, acc *[BlockSize]byte, data []byte, last *[BlockSize]byte)

// dotAsm is Dot.
//
//go:noescape
func dotAsm(acc, h *[BlockSize]byte)
