package polyval

const accelerated = false

func initAsm(*Key, *[BlockSize]byte) { panic("polyval: no assembly in this build") }

func updateAsm(*Key, *[BlockSize]byte, []byte, *[BlockSize]byte) {
	panic("polyval: no assembly in this build")
}

func dotAsm(*[BlockSize]byte, *[BlockSize]byte) { panic("polyval: no assembly in this build") }
