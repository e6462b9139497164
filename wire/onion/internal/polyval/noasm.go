//go:build purego || !(amd64 || arm64)

package polyval

// accelerated says whether initAsm, updateAsm and dotAsm may be called.
const accelerated = false

func initAsm(*Key, *[BlockSize]byte) { panic("polyval: no assembly in this build") }

func updateAsm(*Key, *[BlockSize]byte, []byte, *[BlockSize]byte) {
	panic("polyval: no assembly in this build")
}

func dotAsm(*[BlockSize]byte, *[BlockSize]byte) { panic("polyval: no assembly in this build") }
