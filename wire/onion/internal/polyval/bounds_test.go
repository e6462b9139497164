//go:build linux || darwin

package polyval

import (
	"syscall"
	"testing"
)

// TestBounds hashes data that touches inaccessible pages at its end and at its start, with key and sum there
// too: an access outside them faults.
func TestBounds(t *testing.T) {
	readable := guarded(t)
	n := len(readable)
	r := newRandom()
	h, start := randomBlock(r), randomBlock(r)
	r.Read(readable)
	for length := range longest + 1 {
		checkAgree(t, h, start, readable[:length])
		checkAgree(t, h, start, readable[n-length:])
	}
	first, last := (*[BlockSize]byte)(readable), (*[BlockSize]byte)(readable[n-BlockSize:])
	for _, im := range implementations() {
		for _, block := range []*[BlockSize]byte{first, last} {
			var k Key
			im.init(&k, block)
			im.update(&k, block, start[:])
			im.dot(block, block)
		}
	}
}

// guarded returns a page of memory between two that must not be touched.
func guarded(t *testing.T) []byte {
	t.Helper()
	page := syscall.Getpagesize()
	memory, err := syscall.Mmap(-1, 0, 3*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(memory); err != nil {
			t.Error(err)
		}
	})
	for _, guard := range [][]byte{memory[:page], memory[2*page:]} {
		if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	return memory[page : 2*page : 2*page]
}
