package bench

import (
	"math/rand/v2"

	"github.com/retrievalattention/ra/host/kernel"
)

// exactKNN searches for the 32 nearest keys of a block of queries, in f32 and
// with both sides rounded: what a graph is built from.
func exactKNN(s *store, o *KernelOptions) []kernelCase {
	const nq = 256
	rows := min(1024, s.n)
	var cs []kernelCase
	for _, form := range []struct {
		name, arithmetic string
		knn              func(q []float32, n int, keys kernel.Rows, lo, hi int, base uint32, tops []*kernel.TopK, scratch []float32)
	}{{"knn", "f32", kernel.KNN}, {"knn-rounded", "bf16", kernel.KNNRounded}} {
		cs = append(cs, kernelCase{
			name: form.name, dim: s.dim, n: rows, queries: nq, cache: "memory", arithmetic: form.arithmetic, unit: "key",
			units: float64(rows), bytes: float64(rows) * s.rowBytes(), flops: float64(2 * rows * nq * s.dim),
			worker: func(c *cursor) func() {
				r := rand.New(rand.NewPCG(o.Seed, uint64(c.head)))
				q, scratch := vector(r, nq*s.dim), make([]float32, kernel.KNNScratch(s.dim))
				tops := make([]*kernel.TopK, nq)
				for i := range tops {
					tops[i] = kernel.NewTopK(32)
				}
				// Collectors stay filled, as in a search over many keys.
				return func() {
					head, lo := c.next(s, rows)
					form.knn(q, nq, s.keys[head], lo, lo+rows, 0, tops, scratch)
				}
			},
		})
	}
	return cs
}
