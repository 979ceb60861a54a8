package bench

import (
	"fmt"
	"sync"

	"github.com/retrievalattention/ra/host/kernel"
)

// codes scans the codes of all keys of a head and, in two stages, scores the
// best of them exactly. What is read of a key is its code.
func codes(s *store, o *KernelOptions) []kernelCase {
	var cs []kernelCase
	for _, bits := range []int{2, 4} {
		var coder *kernel.Coder
		rotation := kernel.NewRotation(s.dim, o.Seed)
		// Each head's codes, made when a case is first measured.
		coded := sync.OnceValue(func() []kernel.CodedKeys {
			coder = kernel.NewCoder(rotation, bits, s.keys[0])
			all := make([]kernel.CodedKeys, s.heads)
			spread(s.heads, func(h int) {
				c := coder.Over(make([]byte, coder.Bytes(s.n)), 0)
				c.Append(s.keys[h], 0, s.n)
				all[h] = kernel.CodedKeys{Codes: c, Keys: s.keys[h], Hi: s.n}
			})
			return all
		})
		bytes := float64(kernel.NewCoderAround(rotation, bits, make([]float32, s.dim)).Bytes(s.n))
		for _, nq := range o.Queries {
			shape := kernelCase{
				dim: s.dim, n: s.n, queries: nq, cache: "memory", arithmetic: "int8", unit: "key",
				units: float64(s.n), bytes: bytes, flops: float64(2 * s.n * nq * s.dim),
			}
			scan, search := shape, shape
			scan.name = fmt.Sprintf("codes-%d-bit", bits)
			scan.worker = func(c *cursor) func() {
				keys := coded()
				var qs kernel.CodeQueries
				qs.Set(coder, vectors(o.rand(), nq, s.dim))
				out := vectors(o.rand(), nq, s.n)
				return func() {
					head, _ := c.next(s, s.n)
					keys[head].Codes.Estimate(&qs, 0, s.n, out)
				}
			}
			search.name = fmt.Sprintf("two-stage-%d-bit", bits)
			search.worker = func(c *cursor) func() {
				keys, qs, tops := coded(), vectors(o.rand(), nq, s.dim), collectors(nq, 100)
				var two kernel.TwoStage
				return func() {
					head, _ := c.next(s, s.n)
					two.Search(qs, keys[head:head+1], 100, s.n/80, tops, nil, 0)
				}
			}
			cs = append(cs, scan, search)
		}
	}
	return cs
}
