// Package cow holds tables of fixed-size rows in memory outside the Go heap
// whose forks share what they have in common. It is what index objects keep
// their bulk in.
//
// A [Table] has a base of rows that is written once, while it is built, and
// two things on top of it that each fork has for itself: rows that it changed
// and rows that it appended. A fork copies pointers alone; the first change
// of a row copies that row.
package cow

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/retrievalattention/ra/host/kv"
)

// Word is an element of a table.
type Word interface{ uint32 | float32 }

// Memory is where tables take their memory from. [kv.Allocator] is one.
type Memory interface {
	Alloc(bytes int64, k kv.Kind) (*kv.Region, error)
}

const (
	leafRows = 512       // rows that one leaf stands for
	minChunk = 1 << 13   // words of an arena's first chunk: 32 KiB
	maxChunk = 256 << 10 // and of its largest: 1 MiB
)

// Table is rows of one width. Reads may run beside each other and beside
// Fork; a write (Write, Grow, Close) excludes all else. Rows are the table's
// memory, valid until Close.
type Table[T Word] struct {
	stride int
	rows   int // base and appended
	built  int // rows of the base
	block  *kv.Region
	base   []T
	shared atomic.Bool // a fork reads the base too: it is written no more

	// A row that is not read from the base is in the arena. leaves[i/leafRows]
	// is 0 where all rows are the base's, else 1 + the index of a leaf; a
	// leaf has 1 + the index in the arena of each of its rows, 0 for the base.
	leaves []uint32
	leaf   arena[uint32]
	own    arena[T]
}

// New returns a table of n zeroed rows of the given width.
func New[T Word](mem Memory, stride, n int) (*Table[T], error) {
	b, err := alloc(mem, int64(stride)*int64(n))
	if err != nil {
		return nil, err
	}
	return &Table[T]{
		stride: stride, rows: n, built: n, block: b, base: kv.Slice[T](b, 0, int64(stride)*int64(n)),
		leaf: arena[uint32]{mem: mem, stride: leafRows},
		own:  arena[T]{mem: mem, stride: stride},
	}, nil
}

// alloc takes memory for so many words, of which there may be none.
func alloc(mem Memory, words int64) (*kv.Region, error) {
	return mem.Alloc(4*max(words, 1), kv.Index)
}

// Len returns the number of rows.
func (t *Table[T]) Len() int { return t.rows }

// Stride returns the width of a row in words.
func (t *Table[T]) Stride() int { return t.stride }

// Bytes returns the memory that the table reaches.
func (t *Table[T]) Bytes() int64 { return int64(len(t.block.Bytes())) + t.leaf.bytes() + t.own.bytes() }

// Base returns the rows of the base, [rows][stride]: to fill them while the
// table is built, before its first Fork.
func (t *Table[T]) Base() []T { return t.base }

// Row returns row i, to be read.
func (t *Table[T]) Row(i int) []T {
	if l := i / leafRows; l < len(t.leaves) && t.leaves[l] != 0 {
		if at := t.leaf.row(int(t.leaves[l]) - 1)[i%leafRows]; at != 0 {
			return t.own.row(int(at) - 1)
		}
	}
	return t.base[i*t.stride : (i+1)*t.stride : (i+1)*t.stride]
}

// Write returns row i of this table alone, to be read and written.
func (t *Table[T]) Write(i int) ([]T, error) {
	if i < t.built && !t.shared.Load() {
		return t.Row(i), nil
	}
	l := i / leafRows
	if l >= len(t.leaves) {
		grown := make([]uint32, (t.rows+leafRows-1)/leafRows)
		copy(grown, t.leaves)
		t.leaves = grown
	}
	var leaf []uint32
	switch at := int(t.leaves[l]) - 1; {
	case at >= t.leaf.mine:
		leaf = t.leaf.row(at)
	default:
		n, fresh, err := t.leaf.alloc()
		if err != nil {
			return nil, err
		}
		if at >= 0 {
			copy(fresh, t.leaf.row(at))
		}
		leaf, t.leaves[l] = fresh, uint32(n)+1
	}
	at := int(leaf[i%leafRows]) - 1
	if at >= t.own.mine {
		return t.own.row(at), nil
	}
	n, row, err := t.own.alloc()
	if err != nil {
		return nil, err
	}
	switch {
	case at >= 0:
		copy(row, t.own.row(at))
	case i < t.built:
		copy(row, t.base[i*t.stride:(i+1)*t.stride])
	}
	leaf[i%leafRows] = uint32(n) + 1
	return row, nil
}

// Grow appends n zeroed rows.
func (t *Table[T]) Grow(n int) error {
	for range n {
		t.rows++
		if _, err := t.Write(t.rows - 1); err != nil {
			t.rows--
			return err
		}
	}
	return nil
}

// Fork returns a table with the same rows. From then on neither sees what the
// other writes. Each must be closed.
func (t *Table[T]) Fork() *Table[T] {
	t.block.Retain()
	t.shared.Store(true)
	f := &Table[T]{
		stride: t.stride, rows: t.rows, built: t.built, block: t.block, base: t.base,
		leaves: append([]uint32(nil), t.leaves...),
	}
	f.shared.Store(true)
	t.leaf.fork(&f.leaf)
	t.own.fork(&f.own)
	return f
}

// Close releases the table's hold on its memory.
func (t *Table[T]) Close() error {
	return errors.Join(t.block.Release(), t.leaf.close(), t.own.close())
}

// arena hands out zeroed rows of one width from chunks of memory that forks
// share. Rows below mine are shared too, and read only.
type arena[T Word] struct {
	mem    Memory
	stride int

	mu     sync.Mutex // forks of one arena may be taken at the same time
	chunks []chunk[T]
	mine   int
	next   int // first row that is free; those of a chunk's end may never be used
}

// chunk is memory for the rows [first, first+rows).
type chunk[T Word] struct {
	first, rows int
	block       *kv.Region
	words       []T
}

func (a *arena[T]) row(i int) []T {
	c := len(a.chunks) - 1
	for a.chunks[c].first > i {
		c--
	}
	at := (i - a.chunks[c].first) * a.stride
	return a.chunks[c].words[at : at+a.stride : at+a.stride]
}

func (a *arena[T]) alloc() (int, []T, error) {
	last := len(a.chunks) - 1
	if last < 0 || a.next >= a.chunks[last].first+a.chunks[last].rows {
		words := minChunk
		if last >= 0 && a.chunks[last].first >= a.mine {
			words = min(2*len(a.chunks[last].words), maxChunk)
		}
		rows := max(words/a.stride, 1)
		b, err := alloc(a.mem, int64(rows*a.stride))
		if err != nil {
			return 0, nil, err
		}
		a.chunks = append(a.chunks[:last+1:last+1], chunk[T]{a.next, rows, b, kv.Slice[T](b, 0, int64(rows*a.stride))})
	}
	i := a.next
	a.next++
	return i, a.row(i), nil
}

func (a *arena[T]) fork(into *arena[T]) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if last := len(a.chunks) - 1; last >= 0 && a.mine != a.next {
		// Both go on in chunks of their own.
		a.next = a.chunks[last].first + a.chunks[last].rows
		a.mine = a.next
	}
	for _, c := range a.chunks {
		c.block.Retain()
	}
	into.mem, into.stride, into.mine, into.next = a.mem, a.stride, a.mine, a.next
	into.chunks = append([]chunk[T](nil), a.chunks...)
}

func (a *arena[T]) bytes() int64 {
	var n int64
	for _, c := range a.chunks {
		n += int64(len(c.block.Bytes()))
	}
	return n
}

func (a *arena[T]) close() error {
	var errs []error
	for _, c := range a.chunks {
		errs = append(errs, c.block.Release())
	}
	a.chunks = nil
	return errors.Join(errs...)
}
