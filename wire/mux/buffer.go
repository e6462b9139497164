package mux

import (
	"sync"

	"torproxy/wire"
)

// batch is the buffer of one write: so many cells that the cost of a write is shared by all of them.
type batch [batchCells * wire.CellSize]byte

const batchCells = 52

var batches = sync.Pool{New: func() any { return new(batch) }}

// block is a piece of a queue of received bytes.
type block struct {
	next  *block
	start int
	end   int
	data  [blockSize]byte
}

// blockSize is that of eight cells: a stream that holds a few bytes pins no more than that.
const blockSize = 8 * wire.CellSize

var blocks = sync.Pool{New: func() any { return new(block) }}

func (b *block) bytes() []byte { return b.data[b.start:b.end] }
func (b *block) len() int      { return b.end - b.start }

func (b *block) free() {
	b.next, b.start, b.end = nil, 0, 0
	blocks.Put(b)
}

// queue holds received bytes in order. Its owner locks.
type queue struct {
	head, tail *block
	size       int
}

func (q *queue) write(p []byte) {
	q.size += len(p)
	for len(p) > 0 {
		if q.tail == nil || q.tail.end == blockSize {
			q.push(blocks.Get().(*block))
		}
		n := copy(q.tail.data[q.tail.end:], p)
		q.tail.end += n
		p = p[n:]
	}
}

func (q *queue) push(b *block) {
	if q.tail == nil {
		q.head = b
	} else {
		q.tail.next = b
	}
	q.tail = b
}

func (q *queue) read(p []byte) (n int) {
	for n < len(p) && q.head != nil {
		k := copy(p[n:], q.head.bytes())
		q.head.start += k
		q.size -= k
		n += k
		if q.head.len() == 0 {
			q.pop().free()
		}
	}
	return n
}

// pop takes the first block out; nil if there is none. The taker frees it.
func (q *queue) pop() *block {
	b := q.head
	if b == nil {
		return nil
	}
	q.head = b.next
	if q.head == nil {
		q.tail = nil
	}
	q.size -= b.len()
	return b
}

func (q *queue) clear() {
	for b := q.pop(); b != nil; b = q.pop() {
		b.free()
	}
}
