package kv

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/retrievalattention/ra/host/kernel"
)

func newArena(t *testing.T) *Arena {
	t.Helper()
	a, err := NewArena("test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// Blocks begin as zeros, do not overlap, appear at their offset in the file,
// and their memory is used again.
func TestArena(t *testing.T) {
	a := newArena(t)
	r := rand.New(rand.NewPCG(1, 1))
	page := int64(os.Getpagesize())
	var blocks []*Mapping
	for i := range 400 {
		if len(blocks) > 0 && r.IntN(5) < 2 {
			j := r.IntN(len(blocks))
			if err := blocks[j].Unmap(); err != nil {
				t.Fatal(err)
			}
			blocks = append(blocks[:j], blocks[j+1:]...)
			continue
		}
		n := page * (1 + r.Int64N(5))
		if i%50 == 0 {
			n += 2 << 20 // in huge pages
		}
		b, err := a.Map(n, true)
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(b.Data)) != n || b.Offset%page != 0 || len(bytes.Trim(b.Data, "\x00")) != 0 {
			t.Fatalf("block %d: %d bytes at %d, or not zero", i, len(b.Data), b.Offset)
		}
		for j := range b.Data {
			b.Data[j] = byte(b.Offset / page)
		}
		blocks = append(blocks, b)
	}
	var used int64
	for _, b := range blocks {
		got := make([]byte, len(b.Data))
		if _, err := a.File().ReadAt(got, b.Offset); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, b.Data) || bytes.Count(got, []byte{byte(b.Offset / page)}) != len(got) {
			t.Fatalf("the block at %d was written to by another, or is not in the file", b.Offset)
		}
		used += int64(len(b.Data))
	}
	var free int64
	for _, e := range a.free {
		free += e.len
	}
	if used+free != a.size {
		t.Errorf("%d bytes used and %d free of %d", used, free, a.size)
	}
	for _, b := range blocks {
		if err := b.Unmap(); err != nil {
			t.Fatal(err)
		}
	}
	if len(a.free) != 1 || a.free[0] != (extent{0, a.size}) {
		t.Errorf("free %v of %d", a.free, a.size)
	}
	if size := a.size; size != minArena {
		t.Errorf("the file has grown to %d", size)
	}
}

// An arena grows beyond its first size; what was mapped stays where it was.
func TestArenaGrows(t *testing.T) {
	a := newArena(t)
	first, err := a.Map(int64(os.Getpagesize()), true)
	if err != nil {
		t.Fatal(err)
	}
	first.Data[7] = 7
	large, err := a.Map(3*minArena, false)
	if err != nil {
		t.Fatal(err)
	}
	large.Data[3*minArena-1] = 9
	if info, err := a.File().Stat(); err != nil || info.Size() != a.size || a.size < large.Offset+3*minArena || first.Data[7] != 7 {
		t.Errorf("%v, %d bytes", err, a.size)
	}
	if err := errors.Join(first.Unmap(), large.Unmap()); err != nil {
		t.Error(err)
	}
}

// Who has the file can read it and not write.
func TestArenaIsReadOnly(t *testing.T) {
	a := newArena(t)
	b, err := a.Map(int64(os.Getpagesize()), true)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Unmap()
	if _, err := a.File().WriteAt([]byte{1}, 0); err == nil {
		t.Error("it can be written")
	}
	if err := a.File().Truncate(0); err == nil {
		t.Error("it can be cut")
	}
	fd := int(a.File().Fd())
	if m, err := unix.Mmap(fd, 0, 100, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
		t.Error("it can be mapped for writing", unix.Munmap(m))
	}
	m, err := unix.Mmap(fd, b.Offset, 100, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	b.Data[5] = 42
	if m[5] != 42 {
		t.Error("another mapping does not see what is written")
	}
}

// A context in shared memory lies in the files where it says, keys apart from
// values, in every segment and fork.
func TestExtents(t *testing.T) {
	a, err := NewSharedAllocator(0)
	if err != nil {
		t.Fatal(err)
	}
	keys, values, queries := a.Shared()
	q, err := a.Alloc(100, Queries)
	if err != nil {
		t.Fatal(err)
	}
	if f, off := q.File(); f != queries.File() {
		t.Error("queries are not in their arena")
	} else if at, ok := queries.Offset(unsafe.Pointer(&q.Bytes()[40])); !ok || at != off+40 {
		t.Errorf("byte 40 of the queries is at %d, %v", at, ok)
	}
	if _, ok := keys.Offset(unsafe.Pointer(&q.Bytes()[40])); ok {
		t.Error("queries are in the arena of the keys")
	}
	g := Geometry{Layers: 2, KVHeads: 3, HeadDim: 6, DType: kernel.BF16}
	c, err := NewContext(g, 10, a)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(2, 2))
	x, y := make([]float32, g.HeadDim), make([]float32, g.HeadDim)
	grow := func(c *Context, n int) {
		if err := c.Reserve(n); err != nil {
			t.Fatal(err)
		}
		for l := range g.Layers {
			for h := range g.KVHeads {
				for pos := c.Len(); pos < c.Len()+n; pos++ {
					for i := range x {
						x[i], y[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
					}
					c.Put(l, h, pos, x, y)
				}
			}
		}
		c.Commit(n)
	}
	grow(c, minSegment+100)
	f := c.Fork()
	grow(f, 50)
	grow(c, 3*minSegment)
	for _, c := range []*Context{c, f} {
		for l := range g.Layers {
			for h := range g.KVHeads {
				pos := 0
				for e := range c.Extents(l, c.Len()) {
					if e.Start != pos {
						t.Fatalf("an extent begins at %d, want %d", e.Start, pos)
					}
					for i := range e.Rows {
						at := e.HeadStride*int64(h) + e.RowStride*int64(i)
						for s := range c.Segments(l, h, pos, pos+1) {
							same(t, keys.File(), e.Keys+at, s.Keys.U16)
							same(t, values.File(), e.Values+at, s.Values.U16)
						}
						pos++
					}
				}
				if pos != c.Len() {
					t.Errorf("extents of %d tokens, want %d", pos, c.Len())
				}
			}
		}
	}
	if !c.Shared() || !f.Shared() {
		t.Error("the contexts say that they are not shared")
	}
	if err := errors.Join(q.Release(), c.Close(), f.Close()); err != nil || a.Used() != 0 {
		t.Errorf("%v, %d bytes used", err, a.Used())
	}
	for range c.Extents(0, 1) {
		t.Error("a closed context has extents")
	}
	private, err := NewContext(g, 1, NewAllocator(0))
	if err != nil {
		t.Fatal(err)
	}
	if private.Shared() {
		t.Error("private memory is shared")
	}
	if err := private.Close(); err != nil {
		t.Error(err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

// same compares elements with those in the file.
func same(t *testing.T, f *os.File, off int64, want []uint16) {
	t.Helper()
	b := make([]byte, 2*len(want))
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	for i, x := range want {
		if got := uint16(b[2*i]) | uint16(b[2*i+1])<<8; got != x {
			t.Fatalf("element %d is %#x in the file, want %#x", i, got, x)
		}
	}
}

// Views are numbered in the order in which they are made, forks know their
// parent.
func TestLineage(t *testing.T) {
	c, err := NewContext(Geometry{Layers: 1, KVHeads: 1, HeadDim: 2}, 1, NewAllocator(0))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	v := NewView(c)
	f := v.Fork(c)
	g := f.Fork(c)
	if v.ID() == 0 || f.ID() <= v.ID() || g.ID() <= f.ID() {
		t.Errorf("numbers %d, %d, %d", v.ID(), f.ID(), g.ID())
	}
	if v.Parent() != nil || f.Parent() != v || g.Parent() != f {
		t.Error("wrong parents")
	}
}
