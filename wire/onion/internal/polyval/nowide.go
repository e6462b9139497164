//go:build purego || !amd64

package polyval

// wide says whether updateWide may be called.
const wide = false

func updateWide(*Key, *[BlockSize]byte, []byte) { panic("polyval: no wide assembly in this build") }
