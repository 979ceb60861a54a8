package kv

import (
	"errors"
	"fmt"
	"math"
	"sync"
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

func (g Geometry) validate() error {
	if g.Layers < 1 || g.KVHeads < 1 || g.HeadDim < 2 || g.HeadDim%2 != 0 {
		return fmt.Errorf("kv geometry %+v: layers and KV heads must be positive, the head dimension even", g)
	}
	return nil
}

// Bytes returns the memory of the keys and values of the given tokens.
func (g Geometry) Bytes(tokens int) (int64, error) {
	per, ok := g.headBytes(tokens)
	n := per
	for _, f := range []int64{2, int64(g.Layers), int64(g.KVHeads)} {
		if ok = ok && n <= math.MaxInt64/f; ok {
			n *= f
		}
	}
	if !ok {
		return 0, fmt.Errorf("%w: %d tokens do not fit the address space", ErrBudget, tokens)
	}
	return n, nil
}

// headBytes is the size of the key rows (or value rows) of one head, unless
// it overflows.
func (g Geometry) headBytes(tokens int) (int64, bool) {
	row := int64(g.HeadDim) * int64(g.DType.Size())
	if tokens < 0 || int64(tokens) > math.MaxInt64/row {
		return 0, false
	}
	return roundUp(int64(tokens)*row, align)
}

// GrowthBytes returns the memory that a context without room takes to grow by n
// tokens, as a fork does.
func (g Geometry) GrowthBytes(n int) (int64, error) { return g.Bytes(max(n, minSegment)) }

// align is the alignment in bytes of every head's rows within a segment.
const align = 64

// minSegment is the least number of tokens that a context grows by.
const minSegment = 1024

// segment is memory for the tokens at positions [start, start+capacity) of
// every layer and KV head. A context reads it up to position end.
type segment struct {
	start, end, capacity int
	// mem holds keys and values in the layout of [Geometry.Bytes], unless
	// there are values: then it holds the keys alone, and both are in the
	// same order of layers and heads.
	mem, values *Region
}

// Context is the keys and values of one token sequence. One goroutine may
// append while others read positions below Len and fork it.
type Context struct {
	geo    Geometry
	mem    *Allocator
	mu     sync.Mutex                // guards changes of segs and closed
	segs   atomic.Pointer[[]segment] // replaced, never changed, when the context grows
	closed bool
	len    atomic.Int64
}

// NewContext returns an empty context with room for capacity tokens, taken
// from mem. Close releases it.
func NewContext(geo Geometry, capacity int, mem *Allocator) (*Context, error) {
	if err := geo.validate(); err != nil {
		return nil, err
	}
	c := newContext(geo, mem, nil, 0)
	if err := c.Reserve(capacity); err != nil {
		return nil, err
	}
	return c, nil
}

// NewContextOn returns a context of the given tokens, which r holds in the
// layout of [Geometry.Bytes]: keys, then values of each KV head of each layer,
// each run of rows padded to 64 bytes. It takes over the caller's hold on r;
// what is appended comes from mem.
func NewContextOn(geo Geometry, tokens int, r *Region, mem *Allocator) (*Context, error) {
	if err := geo.validate(); err != nil {
		return nil, err
	}
	want, err := geo.Bytes(tokens)
	if err != nil {
		return nil, err
	}
	if tokens < 1 || want != int64(len(r.Bytes())) {
		return nil, fmt.Errorf("%d tokens take %d bytes, the region has %d", tokens, want, len(r.Bytes()))
	}
	return newContext(geo, mem, []segment{{0, tokens, tokens, r, nil}}, tokens), nil
}

func newContext(geo Geometry, mem *Allocator, segs []segment, n int) *Context {
	c := &Context{geo: geo, mem: mem}
	c.segs.Store(&segs)
	c.len.Store(int64(n))
	return c
}

// Geometry returns the context's shape.
func (c *Context) Geometry() Geometry { return c.geo }

// Len returns the number of committed tokens.
func (c *Context) Len() int { return int(c.len.Load()) }

// Reserve makes room for n tokens beyond Len. What is stored does not move.
func (c *Context) Reserve(n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	segs := *c.segs.Load()
	end := 0
	if len(segs) > 0 {
		end = segs[len(segs)-1].end
	}
	spare := end - c.Len()
	if n <= spare {
		return nil
	}
	need := n - spare
	capacity := max(need, minSegment)
	size, err := c.geo.Bytes(capacity)
	if err != nil {
		return err
	}
	// What is asked for is written, padding may never be.
	mem, values, err := c.mem.allocContext(size, need == capacity)
	if err != nil {
		return err
	}
	grown := append(append([]segment(nil), segs...), segment{end, end + capacity, capacity, mem, values})
	c.segs.Store(&grown)
	return nil
}

// Put stores the key and value (f32, length HeadDim each) of the token at
// pos for one layer and KV head; see [Context.PutRows].
func (c *Context) Put(layer, head, pos int, key, value []float32) {
	c.PutRows(layer, head, pos, 1, c.geo.HeadDim, key, value)
}

// PutRows stores the keys and values (f32) of n tokens from pos on for one
// layer and KV head; row i begins at i*stride. The positions must be reserved
// and not committed: anything else is a host bug, and panics. Tokens count
// from Commit on.
func (c *Context) PutRows(layer, head, pos, n, stride int, keys, values []float32) {
	i := 0
	if pos >= c.Len() {
		for s := range c.Segments(layer, head, pos, pos+n) {
			for j := range s.Keys.N {
				at := i * stride
				s.Keys.Narrow(j, keys[at:at+c.geo.HeadDim])
				s.Values.Narrow(j, values[at:at+c.geo.HeadDim])
				i++
			}
		}
	}
	if i < n {
		panic(fmt.Sprintf("kv: put tokens [%d, %d) into a context of %d with room to %d", pos, pos+n, c.Len(), pos+i))
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

// Block is memory of a context: Region holds Capacity tokens from position
// Start on, in the layout of [Geometry.Bytes]; the context reads those below
// End. In shared memory Region holds the keys alone and Values the values,
// otherwise Values is nil.
type Block struct {
	Start, End, Capacity int
	Region, Values       *Region
}

// Blocks returns the memory that the context reads, in order: what a file is
// to keep. It is the context's, and others' who share it: valid until Close.
func (c *Context) Blocks() []Block {
	var blocks []Block
	for _, s := range *c.segs.Load() {
		blocks = append(blocks, Block{s.start, s.end, s.capacity, s.mem, s.values})
	}
	return blocks
}

func (c *Context) slice(s segment, layer, head, lo, hi int) Segment {
	per, _ := c.geo.headBytes(s.capacity) // checked when it was reserved
	values, keyAt := s.values, per*int64(layer*c.geo.KVHeads+head)
	valueAt := keyAt
	if values == nil {
		values, keyAt, valueAt = s.mem, 2*keyAt, 2*keyAt+per
	}
	return Segment{
		Start:  lo,
		Keys:   c.rows(s.mem, s.capacity, keyAt).Slice(lo-s.start, hi-s.start),
		Values: c.rows(values, s.capacity, valueAt).Slice(lo-s.start, hi-s.start),
	}
}

func (c *Context) rows(r *Region, capacity int, off int64) kernel.Rows {
	n := int64(capacity) * int64(c.geo.HeadDim)
	if c.geo.DType == kernel.F32 {
		return kernel.RowsF32(Slice[float32](r, off, n), c.geo.HeadDim)
	}
	return kernel.RowsU16(Slice[uint16](r, off, n), c.geo.HeadDim, c.geo.DType)
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
// The context's memory must be shared.
func (c *Context) Extents(layer, n int) func(yield func(Extent) bool) {
	return func(yield func(Extent) bool) {
		for _, s := range *c.segs.Load() {
			rows := min(n, s.end) - s.start
			if rows <= 0 {
				return
			}
			per, _ := c.geo.headBytes(s.capacity)
			off := per * int64(layer*c.geo.KVHeads)
			_, keys := s.mem.File()
			_, values := s.values.File()
			e := Extent{
				Start: s.start, Rows: rows, Keys: keys + off, Values: values + off,
				HeadStride: per, RowStride: int64(c.geo.HeadDim) * int64(c.geo.DType.Size()),
			}
			if !yield(e) {
				return
			}
		}
	}
}

// Shared reports whether all of the context's memory is a shared
// allocator's.
func (c *Context) Shared() bool {
	for _, s := range *c.segs.Load() {
		if s.values == nil {
			return false
		}
	}
	return true
}

// Fork returns a context that reads this one's tokens and appends its own
// after them. The two share memory; each must be closed. A fork of a closed
// context is closed.
func (c *Context) Fork() *Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.Len()
	var segs []segment
	for _, s := range *c.segs.Load() {
		if s.start >= n {
			break
		}
		s.end = min(s.end, n)
		s.mem.Retain()
		if s.values != nil {
			s.values.Retain()
		}
		segs = append(segs, s)
	}
	f := newContext(c.geo, c.mem, segs, n)
	f.closed = c.closed
	return f
}

// Close releases the context's hold on its memory. No reader or writer may be
// at work. Afterwards the context yields no segments and cannot grow; closing
// it again does nothing.
func (c *Context) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var errs []error
	for _, s := range *c.segs.Swap(&[]segment{}) {
		errs = append(errs, s.mem.Release())
		if s.values != nil {
			errs = append(errs, s.values.Release())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("release keys and values: %w", err)
	}
	return nil
}
