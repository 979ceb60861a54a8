package compute

import (
	"context"
	"math"
	"sync"

	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
)

// cpuReader keeps what a call of Score needs, so that it allocates nothing.
type cpuReader struct {
	list    lister
	scratch []float32
	part    [kernel.MaxQueries][]float32
}

func (c *cpu) Reader(head Head) Reader {
	r := &cpuReader{}
	r.Reset(head)
	return r
}

func (r *cpuReader) Reset(head Head) {
	r.list.reset(head.Context, head.Layer, head.KVHead)
	if d := head.Dim(); len(r.scratch) < d {
		r.scratch = make([]float32, d)
	}
}

func (r *cpuReader) Score(queries [][]float32, ids []uint32, out [][]float32) {
	segs := r.list.segs
	if len(segs) == 1 && segs[0].Start == 0 {
		kernel.ScoreList(queries, segs[0].Keys, ids, out, r.scratch)
		return
	}
	part := r.part[:len(queries)]
	r.list.each(ids, func(seg kv.Segment, rows []uint32, lo, hi int) {
		for j := range part {
			part[j] = out[j][lo:hi]
		}
		kernel.ScoreList(queries, seg.Keys, rows, part, r.scratch)
	})
}

func (r *cpuReader) Key(id uint32, dst []float32) {
	s := r.list.find(int(id))
	s.Keys.Widen(int(id)-s.Start, dst)
}

func (r *cpuReader) Value(id uint32, dst []float32) {
	s := r.list.find(int(id))
	s.Values.Widen(int(id)-s.Start, dst)
}

const (
	// knnQueries is how many queries share the packing of a block of keys.
	knnQueries = 192
	// knnKeys is how many keys they pass over between two looks at the
	// context.
	knnKeys = 4096
)

// KNN runs blocks of queries in parallel.
func (c *cpu) KNN(ctx context.Context, head Head, queries kernel.Rows, ranges []kv.Range, k int, ids []uint32, scores []float32, progress func(int)) (int, error) {
	keys := 0
	for _, r := range ranges {
		keys += r.Len()
	}
	d := head.Dim()
	size := knnQueries*d + kernel.KNNScratch(d) + k
	var pool sync.Pool // *[knnQueries]*kernel.TopK
	err := c.parallel(ctx, (queries.N+knnQueries-1)/knnQueries, size, func(b int, scratch []float32) {
		lo := b * knnQueries
		n := min(knnQueries, queries.N-lo)
		q, scratch := scratch[:n*d], scratch[knnQueries*d:]
		unused, scratch := scratch[:k], scratch[k:]
		tops, _ := pool.Get().(*[knnQueries]*kernel.TopK)
		if tops == nil {
			tops = new([knnQueries]*kernel.TopK)
			for j := range tops {
				tops[j] = kernel.NewTopK(k)
			}
		}
		defer pool.Put(tops)
		for j := range n {
			queries.Widen(lo+j, q[j*d:(j+1)*d])
			tops[j].Reset(k)
		}
		for _, r := range ranges {
			for s := range head.Context.Segments(head.Layer, head.KVHead, r.Lo, r.Hi) {
				for at := 0; at < s.Keys.N; at += knnKeys {
					if ctx.Err() != nil {
						return
					}
					kernel.KNN(q, n, s.Keys, at, min(at+knnKeys, s.Keys.N), uint32(s.Start), tops[:n], scratch)
				}
			}
		}
		for j := range n {
			at, out := (lo+j)*k, unused
			if scores != nil {
				out = scores[at : at+k]
			}
			tops[j].Take(ids[at:at+k], out)
		}
		if progress != nil {
			progress(n)
		}
	})
	return min(k, keys), err
}

// projectRows is how many keys are widened and multiplied at a time.
const projectRows = 64

func (c *cpu) Project(ctx context.Context, head Head, r kv.Range, m kernel.Rows, out []float32) error {
	return c.blocks(ctx, head, r, projectRows*m.Dim+kernel.GEMMScratch(m.Dim), func(s kv.Segment, scratch []float32) {
		wide, rest := scratch[:projectRows*m.Dim], scratch[projectRows*m.Dim:]
		for i := range s.Keys.N {
			s.Keys.Widen(i, wide[i*m.Dim:(i+1)*m.Dim])
		}
		kernel.MatMul(wide, s.Keys.N, m, 0, m.N, out[(s.Start-r.Lo)*m.N:], m.N, rest)
	})
}

func (c *cpu) Norms(ctx context.Context, head Head, r kv.Range, out []float32) error {
	return c.blocks(ctx, head, r, head.Dim(), func(s kv.Segment, scratch []float32) {
		for i := range s.Keys.N {
			s.Keys.Widen(i, scratch)
			out[s.Start-r.Lo+i] = float32(math.Sqrt(float64(kernel.Dot(scratch, scratch))))
		}
	})
}

// blocks calls f in parallel for pieces of r of at most projectRows tokens
// that lie in one segment each.
func (c *cpu) blocks(ctx context.Context, head Head, r kv.Range, scratch int, f func(s kv.Segment, scratch []float32)) error {
	n := (r.Len() + projectRows - 1) / projectRows
	return c.parallel(ctx, n, scratch, func(i int, scratch []float32) {
		lo := r.Lo + i*projectRows
		for s := range head.Context.Segments(head.Layer, head.KVHead, lo, min(lo+projectRows, r.Hi)) {
			f(s, scratch)
		}
	})
}
