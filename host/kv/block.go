package kv

import "unsafe"

// Word is an element of a [Block].
type Word interface{ uint32 | float32 }

// Block is zeroed memory of an index object, outside the Go heap and counted
// against the allocator's budget. It is reference counted: NewBlock returns
// one reference, and the memory is given back with the last. It is safe for
// concurrent use; what is written to it is the holders' affair.
type Block struct{ r *region }

// NewBlock reserves memory for n four-byte words, page-aligned.
func (a *Allocator) NewBlock(n int64) (*Block, error) {
	// A mapping of nothing is refused by the system.
	r, err := a.alloc(4 * max(n, 1))
	if err != nil {
		return nil, err
	}
	return &Block{r}, nil
}

// Bytes returns the size of the block.
func (b *Block) Bytes() int64 { return int64(len(b.r.data)) }

// Retain adds a reference.
func (b *Block) Retain() { b.r.retain() }

// Release drops a reference.
func (b *Block) Release() error { return b.r.release() }

// Words views the block as words of one type, valid until the last Release.
func Words[T Word](b *Block) []T {
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b.r.data))), len(b.r.data)/4)
}
