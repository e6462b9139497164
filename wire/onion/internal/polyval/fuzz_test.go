package polyval

import "testing"

// FuzzPolyval holds the assembly to its portable twin, and both to the reference.
func FuzzPolyval(f *testing.F) {
	for _, c := range readVectors(f).Polyval {
		f.Add([]byte(c.Key), make([]byte, BlockSize), []byte(c.Input))
	}
	r := newRandom()
	blocks := corpus(r)
	for i, n := range []int{0, 1, 15, 16, 17, 112, 127, 128, 129, 255, 256, 257, 2032, 2033, 2048} {
		data := make([]byte, n)
		r.Read(data)
		h, start := blocks[i], blocks[len(blocks)-1-i]
		f.Add(h[:], start[:], data)
	}
	f.Fuzz(func(t *testing.T, key, sum, data []byte) {
		var h, start [BlockSize]byte
		copy(h[:], key)
		copy(start[:], sum)
		checkAgree(t, h, start, data)

		data = data[:min(len(data), 512)] // the reference is slow
		got := start
		var k Key
		k.Init(&h)
		k.Update(&got, data)
		if want := refUpdate(h, start, data); got != want {
			t.Errorf("Update(%x, %x) under %x = %x, want %x", start, data, h, got, want)
		}
	})
}
