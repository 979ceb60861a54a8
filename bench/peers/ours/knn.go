package main

import (
	"sync"

	"github.com/retrievalattention/ra/host/kernel"
)

// search is the form of [kernel.KNN].
type search func(q []float32, n int, keys kernel.Rows, lo, hi int, base uint32, tops []*kernel.TopK, scratch []float32)

// knn is exact search for many queries at once over the keys of a head, the
// queries divided among the threads.
func knn(dtype kernel.DType, form search) maker {
	return func(d *data) (func(r *request) ([][][]uint32, error), error) {
		view, err := d.store(dtype)
		if err != nil {
			return nil, err
		}
		return func(r *request) ([][][]uint32, error) {
			ids := make([][][]uint32, r.Heads)
			for h := range r.Heads {
				for s := range view.Context().Segments(0, h, 0, view.Len()) {
					ids[h] = d.nearest(form, s.Keys, d.queries[h], r)
				}
			}
			return ids, nil
		}, nil
	}
}

// nearest returns the ids of the k nearest keys of each query.
func (d *data) nearest(form search, keys kernel.Rows, queries []float32, r *request) [][]uint32 {
	ids := make([][]uint32, r.Queries)
	per := (r.Queries + r.Threads - 1) / r.Threads
	var wg sync.WaitGroup
	for lo := 0; lo < r.Queries; lo += per {
		n := min(per, r.Queries-lo)
		wg.Go(func() {
			tops, scores := make([]*kernel.TopK, n), make([]float32, r.K)
			for i := range tops {
				tops[i] = kernel.NewTopK(r.K)
			}
			form(queries[lo*d.dim:], n, keys, 0, keys.N, 0, tops, make([]float32, kernel.KNNScratch(d.dim)))
			for i, t := range tops {
				ids[lo+i] = make([]uint32, t.Len())
				t.Take(ids[lo+i], scores)
			}
		})
	}
	wg.Wait()
	return ids
}
