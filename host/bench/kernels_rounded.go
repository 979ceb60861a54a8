package bench

import (
	"math/rand/v2"

	"github.com/retrievalattention/ra/host/kernel"
)

// rounded chooses candidates with queries rounded to bf16: scores of
// consecutive and of listed keys, and the best 100 of a head.
func rounded(s *store, o *KernelOptions) []kernelCase {
	arithmetic := "f32"
	if s.dtype == kernel.BF16 {
		arithmetic = "bf16"
	}
	var cs []kernelCase
	for _, nq := range o.Queries {
		rows := min(4096, s.n)
		cs = append(cs, kernelCase{
			name: "rounded-range", dim: s.dim, n: rows, queries: nq, cache: "memory", arithmetic: arithmetic, unit: "key",
			units: float64(rows), bytes: float64(rows) * s.rowBytes(), flops: float64(2 * rows * nq * s.dim),
			worker: func(c *cursor) func() {
				qs, out, scratch := vectors(o.rand(), nq, s.dim), vectors(o.rand(), nq, rows), make([]float32, s.dim)
				return func() {
					head, lo := c.next(s, rows)
					kernel.RoundedRange(qs, s.keys[head], lo, lo+rows, out, scratch)
				}
			},
		})
		const count, length = 32, 32
		cs = append(cs, kernelCase{
			name: "rounded-list", dim: s.dim, n: s.n, queries: nq, cache: "memory", arithmetic: arithmetic, unit: "key",
			units: count * length, bytes: count * length * s.rowBytes(), flops: float64(2 * count * length * nq * s.dim),
			worker: func(c *cursor) func() {
				r := rand.New(rand.NewPCG(o.Seed, uint64(c.head)))
				lists, at := s.lists(r, 64*count, length), 0
				qs, out, scratch := vectors(r, nq, s.dim), vectors(r, nq, length), make([]float32, s.dim)
				return func() {
					for range count {
						head, _ := c.next(s, s.n)
						kernel.RoundedList(qs, s.keys[head], lists[at], out, scratch)
						at = (at + 1) % len(lists)
					}
				}
			},
		})
		cs = append(cs, kernelCase{
			name: "rounded-top-k", dim: s.dim, n: s.n, queries: nq, cache: "memory", arithmetic: arithmetic, unit: "key",
			units: float64(s.n), bytes: float64(s.n) * s.rowBytes(), flops: float64(2 * s.n * nq * s.dim),
			worker: func(c *cursor) func() {
				qs, scratch, tops := vectors(o.rand(), nq, s.dim), make([]float32, s.dim), collectors(nq, 100)
				return func() {
					for _, t := range tops {
						t.Reset(100)
					}
					head, _ := c.next(s, s.n)
					kernel.RoundedTopKRange(qs, s.keys[head], 0, s.n, 0, tops, scratch)
				}
			},
		})
	}
	return cs
}
