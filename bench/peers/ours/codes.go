package main

import (
	"sync"

	"github.com/retrievalattention/ra/host/kernel"
)

// codes is the two-stage search: codes of 2 bits name the best of about 1.25 %
// of the keys, of which inner products with the bf16 keys choose.
func codes(d *data) (func(r *request) ([][][]uint32, error), error) {
	view, err := d.store(kernel.BF16)
	if err != nil {
		return nil, err
	}
	kvc := view.Context()
	n := kvc.Len()
	parts := make([]kernel.CodedKeys, len(d.keys))
	rotation := kernel.NewRotation(d.dim, 1)
	eachHead(len(d.keys), func(h int) {
		for s := range kvc.Segments(0, h, 0, n) {
			coder := kernel.NewCoder(rotation, 2, s.Keys)
			c := coder.Over(make([]byte, coder.Bytes(n)), 0)
			c.Append(s.Keys, 0, n)
			parts[h] = kernel.CodedKeys{Codes: c, Keys: s.Keys, Hi: n}
		}
	})
	search := make([]kernel.TwoStage, len(d.keys))
	return func(r *request) ([][][]uint32, error) {
		ids := make([][][]uint32, r.Heads)
		eachHead(r.Heads, func(h int) {
			tops, scores := make([]*kernel.TopK, group), make([]float32, r.K)
			for j := range tops {
				tops[j] = kernel.NewTopK(r.K)
			}
			for lo := 0; lo < r.Queries; lo += group {
				var qs [][]float32
				for i := lo; i < lo+group; i++ {
					qs = append(qs, d.queries[h][i*d.dim:(i+1)*d.dim])
				}
				search[h].Search(qs, parts[h:h+1], r.K, max(n/80, 8*r.K), tops, nil, 0)
				for _, t := range tops {
					found := make([]uint32, t.Len())
					t.Take(found, scores)
					ids[h] = append(ids[h], found)
				}
			}
		})
		return ids, nil
	}, nil
}

// eachHead calls f for every head, each on a goroutine of its own.
func eachHead(heads int, f func(h int)) {
	var wg sync.WaitGroup
	for h := range heads {
		wg.Go(func() { f(h) })
	}
	wg.Wait()
}
