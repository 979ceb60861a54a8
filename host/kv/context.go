package kv

import (
	"fmt"
	"math"
	"sync/atomic"

	"github.com/retrievalattention/ra/host/kernel"
)

// Geometry is the shape of a model's keys and values.
type Geometry struct {
	Layers  int
	KVHeads int
	HeadDim int // a multiple of 2
	DType   kernel.DType
}

func (g Geometry) rowBytes() int64 { return int64(g.HeadDim * g.DType.Size()) }

// align is the alignment in bytes of every head's rows within a segment.
const align = 64

// minSegment is the least number of tokens that a context grows by.
const minSegment = 1024

// segment is memory for the tokens at positions [start, start+capacity) of
// every layer and KV head. A context reads it up to position end.
type segment struct {
	start, end, capacity int
	mem                  *region
}

// Context is the keys and values of one token sequence. One goroutine may
// append while others read positions below Len.
type Context struct {
	geo  Geometry
	mem  *Allocator
	segs atomic.Pointer[[]segment] // replaced, never changed, when the context grows
	len  atomic.Int64
}

// NewContext returns an empty context with room for capacity tokens, taken
// from mem. Close releases it.
func NewContext(geo Geometry, capacity int, mem *Allocator) (*Context, error) {
	if geo.Layers < 1 || geo.KVHeads < 1 || geo.HeadDim < 2 || geo.HeadDim%2 != 0 {
		return nil, fmt.Errorf("kv geometry %+v: layers and KV heads must be positive, the head dimension even", geo)
	}
	c := &Context{geo: geo, mem: mem}
	c.segs.Store(&[]segment{})
	if err := c.Reserve(capacity); err != nil {
		return nil, err
	}
	return c, nil
}

// Geometry returns the context's shape.
func (c *Context) Geometry() Geometry { return c.geo }

// Len returns the number of committed tokens.
func (c *Context) Len() int { return int(c.len.Load()) }

// Reserve makes room for n tokens beyond Len. What is stored does not move.
func (c *Context) Reserve(n int) error {
	segs := *c.segs.Load()
	end := 0
	if len(segs) > 0 {
		end = segs[len(segs)-1].end
	}
	need := c.Len() + n - end
	if need <= 0 {
		return nil
	}
	capacity := max(need, minSegment)
	size, err := c.segmentBytes(capacity)
	if err != nil {
		return err
	}
	r, err := c.mem.alloc(size)
	if err != nil {
		return err
	}
	grown := append(append([]segment(nil), segs...), segment{end, end + capacity, capacity, r})
	c.segs.Store(&grown)
	return nil
}

// CheckFork reports whether a fork could reserve n tokens at the moment; the
// error says what is missing.
func (c *Context) CheckFork(n int) error {
	size, err := c.segmentBytes(max(n, minSegment))
	if err != nil {
		return err
	}
	if used := c.mem.Used(); c.mem.budget > 0 && used+size > c.mem.budget {
		return c.mem.over(size, used)
	}
	return nil
}

// segmentBytes is the memory of a segment.
func (c *Context) segmentBytes(capacity int) (int64, error) {
	heads := int64(c.geo.Layers * c.geo.KVHeads)
	per := c.headBytes(capacity)
	if per > math.MaxInt64/4/heads {
		return 0, fmt.Errorf("%w: %d tokens do not fit the address space", ErrBudget, capacity)
	}
	return 2 * heads * per, nil
}

// headBytes is the size of the key rows (or value rows) of one head.
func (c *Context) headBytes(capacity int) int64 {
	return (int64(capacity)*c.geo.rowBytes() + align - 1) &^ (align - 1)
}

// Put stores the key and value (f32, length HeadDim each) of the token at
// pos in [Len, Len+reserved) for one layer and KV head. Tokens count from
// Commit on.
func (c *Context) Put(layer, head, pos int, key, value []float32) {
	for s := range c.Segments(layer, head, pos, pos+1) {
		s.Keys.Narrow(0, key)
		s.Values.Narrow(0, value)
	}
}

// Commit counts the next n tokens, stored in every layer, as part of the
// sequence.
func (c *Context) Commit(n int) { c.len.Add(int64(n)) }

// Segment is a contiguous stretch of one head's keys and values; row 0 is the
// token at position Start.
type Segment struct {
	Start        int
	Keys, Values kernel.Rows
}

// Segments yields the stored rows of positions [lo, hi) in order, clipped to
// what is reserved. The rows are the store's own memory: valid until Close.
func (c *Context) Segments(layer, head, lo, hi int) func(yield func(Segment) bool) {
	return func(yield func(Segment) bool) {
		for _, s := range *c.segs.Load() {
			a, b := max(lo, s.start), min(hi, s.end)
			if a >= b {
				continue
			}
			if !yield(c.slice(s, layer, head, a, b)) {
				return
			}
		}
	}
}

func (c *Context) slice(s segment, layer, head, lo, hi int) Segment {
	per := c.headBytes(s.capacity)
	off := per * int64(layer*c.geo.KVHeads+head)
	return Segment{
		Start:  lo,
		Keys:   c.rows(s.mem.keys, s.capacity, off).Slice(lo-s.start, hi-s.start),
		Values: c.rows(s.mem.values, s.capacity, off).Slice(lo-s.start, hi-s.start),
	}
}

func (c *Context) rows(mem []byte, capacity int, off int64) kernel.Rows {
	n := int64(capacity * c.geo.HeadDim)
	if c.geo.DType == kernel.F32 {
		return kernel.RowsF32(f32(mem, off, n), c.geo.HeadDim)
	}
	return kernel.RowsU16(u16(mem, off, n), c.geo.HeadDim, c.geo.DType)
}

// Extent tells where the rows of one layer lie in the files of a shared
// allocator: row i of KV head h is the token at position Start+i and begins
// HeadStride*h + RowStride*i bytes after Keys in the file of the keys, and
// as far after Values in the file of the values.
type Extent struct {
	Start, Rows           int
	Keys, Values          int64
	HeadStride, RowStride int64
}

// Extents yields where the rows of positions [0, n) of a layer lie, in order.
// The context's allocator must be shared.
func (c *Context) Extents(layer, n int) func(yield func(Extent) bool) {
	return func(yield func(Extent) bool) {
		for _, s := range *c.segs.Load() {
			rows := min(n, s.end) - s.start
			if rows <= 0 {
				return
			}
			per := c.headBytes(s.capacity)
			off := per * int64(layer*c.geo.KVHeads)
			e := Extent{
				Start: s.start, Rows: rows, HeadStride: per, RowStride: c.geo.rowBytes(),
				Keys: s.mem.blocks[0].Offset + off, Values: s.mem.blocks[1].Offset + off,
			}
			if !yield(e) {
				return
			}
		}
	}
}

// Shared returns the allocator of the context's memory when that is shared,
// nil otherwise.
func (c *Context) Shared() *Allocator {
	if c.mem.keys == nil {
		return nil
	}
	return c.mem
}

// Fork returns a context that reads this one's tokens and appends its own
// after them. The two share memory; each must be closed.
func (c *Context) Fork() *Context {
	f := &Context{geo: c.geo, mem: c.mem}
	n := c.Len()
	var segs []segment
	for _, s := range *c.segs.Load() {
		if s.start >= n {
			break
		}
		s.end = min(s.end, n)
		s.mem.retain()
		segs = append(segs, s)
	}
	f.segs.Store(&segs)
	f.len.Store(int64(n))
	return f
}

// Close releases the context's hold on its memory. It must not be used
// afterwards.
func (c *Context) Close() error {
	var first error
	for _, s := range *c.segs.Swap(&[]segment{}) {
		if err := s.mem.release(); err != nil && first == nil {
			first = fmt.Errorf("release keys and values: %w", err)
		}
	}
	return first
}
