package bench

import (
	"math/rand/v2"

	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
)

// store is keys and values of several heads in the product's vector store,
// together more than caches hold.
type store struct {
	kvc          *kv.Context
	heads, n     int // n rows a head
	dim          int
	dtype        kernel.DType
	keys, values []kernel.Rows // one a head
}

// headRows is the number of rows of a head, where the working set allows.
const headRows = 1 << 17

// shapeOf returns a store without memory: keys of about the given bytes over
// at least as many heads as there are threads.
func shapeOf(dtype kernel.DType, dim, rows, threads int, bytes int64) *store {
	row := int64(dim * dtype.Size())
	n := int(min(int64(rows), max(bytes/row/int64(threads), 1)))
	return &store{heads: max(int(bytes/row)/n, threads), n: n, dim: dim, dtype: dtype}
}

// open takes the memory and fills it with seeded random numbers.
func (s *store) open(seed uint64) error {
	var err error
	s.kvc, err = kv.NewContext(kv.Geometry{Layers: 1, KVHeads: s.heads, HeadDim: s.dim, DType: s.dtype}, s.n, kv.NewAllocator(0))
	if err != nil {
		return err
	}
	s.kvc.Commit(s.n)
	for h := range s.heads {
		for seg := range s.kvc.Segments(0, h, 0, s.n) {
			s.keys, s.values = append(s.keys, seg.Keys), append(s.values, seg.Values)
		}
	}
	spread(s.heads, func(h int) {
		r := rand.New(rand.NewPCG(seed, uint64(h)))
		scatter(s.keys[h], r)
		scatter(s.values[h], r)
	})
	return nil
}

func (s *store) close() error {
	s.keys, s.values = nil, nil
	return s.kvc.Close()
}

// scatter fills rows with numbers of magnitude 1/4 to 4, either sign.
func scatter(rows kernel.Rows, r *rand.Rand) {
	for i := range rows.F32 {
		b := r.Uint32()
		rows.F32[i] = (0.25 + 3.75*float32(b>>8)/(1<<24)) * (1 - 2*float32(b&1))
	}
	for i := 0; i < len(rows.U16); i += 4 {
		// A random sign and mantissa under an exponent of 1/4 to 2; one
		// pattern serves bf16 and, with magnitudes from 1 to 4, f16.
		b := r.Uint64()
		for j := i; j < min(i+4, len(rows.U16)); j++ {
			rows.U16[j] = uint16(b)&0x80ff + 125<<7
			b >>= 16
		}
	}
}

// cursor is a worker's place in a store, so that consecutive calls, whatever
// kernel they are of, read what was not read lately. Each worker goes round
// heads of its own: two on the same ones would meet, and from then on one would
// find in the cache what the other has just read.
type cursor struct {
	first, heads int // the worker's own; heads is 0 for all
	head, row    int // head counts from first
}

// next moves past the next rows rows of one head and returns the head and
// the first row.
func (c *cursor) next(s *store, rows int) (head, lo int) {
	if c.row+rows > s.n {
		c.head, c.row = c.head+1, 0
	}
	heads := c.heads
	if heads == 0 {
		heads = s.heads
	}
	c.head %= heads
	lo = c.row
	c.row += rows
	return c.first + c.head, lo
}
