package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// nearest is the oracle: all ids by their products in f64, best first, a NaN
// as -Inf, equal ones by id.
func nearest(q []float32, keys [][]float64) (ids []int, scores []float64) {
	scores = make([]float64, len(keys))
	for i, k := range keys {
		ids = append(ids, i)
		if scores[i], _ = dot64(q, k); scores[i] != scores[i] {
			scores[i] = math.Inf(-1)
		}
	}
	slices.SortStableFunc(ids, func(a, b int) int {
		switch {
		case scores[a] > scores[b]:
			return -1
		case scores[a] < scores[b]:
			return 1
		}
		return a - b
	})
	return ids, scores
}

type knnFunc = func(q []float32, n int, keys Rows, lo, hi int, base uint32, tops []*TopK, scratch []float32)

// search runs f over all keys in two calls and returns what each query kept.
func searchAll(t *testing.T, f knnFunc, q []float32, n int, keys Rows, k, cut int, base uint32) (ids [][]uint32, scores [][]float32) {
	tops := make([]*TopK, n)
	for i := range tops {
		tops[i] = NewTopK(k)
	}
	scratch := guarded(t, make([]float32, KNNScratch(keys.Dim)))
	f(q, n, keys, 0, cut, base, tops, scratch)
	f(q, n, keys, cut, keys.N, base, tops, scratch)
	for _, top := range tops {
		id, score := make([]uint32, top.Len()), make([]float32, top.Len())
		top.Take(id, score)
		ids, scores = append(ids, id), append(scores, score)
	}
	return ids, scores
}

var searches = map[string]struct {
	f         knnFunc
	tolerance float64 // of sum |q.k|
}{
	"KNN":        {KNN, dotTolerance},
	"KNNRounded": {KNNRounded, 1.2e-2},
}

// Small whole numbers have exact products in every form, and many ties: the
// ids and scores equal the oracle's.
func TestKNNTies(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		for name, s := range searches {
			r := rand.New(rand.NewPCG(51, 1))
			for _, dtype := range dtypes {
				for _, dim := range []int{1, 2, 5, 16, 31, 32, 33, 64, 100} {
					n, m, k, base := 1+r.IntN(40), 1+r.IntN(700), r.IntN(40), uint32(r.IntN(1000))
					whole := func(n int) []float32 {
						x := make([]float32, n)
						for i := range x {
							x[i] = float32(r.IntN(5) - 2)
						}
						return x
					}
					keys := store(dtype, whole(m*dim), dim)
					keys.F32, keys.U16 = guarded(t, keys.F32), guarded(t, keys.U16)
					q := guarded(t, whole(n*dim))
					ids, scores := searchAll(t, s.f, q, n, keys, k, r.IntN(m+1), base)
					exact := wide(keys)
					for i := range n {
						want, products := nearest(q[i*dim:(i+1)*dim], exact)
						want = want[:min(k, m)]
						if len(ids[i]) != len(want) {
							t.Fatalf("%s %v dim %d: %d of %d found", name, dtype, dim, len(ids[i]), len(want))
						}
						for x, id := range want {
							if ids[i][x] != base+uint32(id) || float64(scores[i][x]) != products[id] {
								t.Fatalf("%s %v dim %d k %d: rank %d of query %d is %d (%v), want %d (%v)", name, dtype, dim, k, x, i,
									ids[i][x]-base, scores[i][x], id, products[id])
							}
						}
					}
				}
			}
		}
	})
}

// On any data the scores are those of their ids within the tolerance, and no
// key that was left out is better than the last one kept by more than that.
func TestKNN(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		for name, s := range searches {
			r := rand.New(rand.NewPCG(52, 2))
			for _, dtype := range dtypes {
				for _, dim := range dims {
					n, m, k := 1+r.IntN(30), 1+r.IntN(600), 1+r.IntN(40)
					keys, q := guardedRows(t, r, dtype, m, dim), guarded(t, random(r, n*dim))
					ids, scores := searchAll(t, s.f, q, n, keys, k, r.IntN(m+1), 0)
					exact := wide(keys)
					for i := range n {
						if len(ids[i]) != min(k, m) {
							t.Fatalf("%s: %d of %d found", name, len(ids[i]), min(k, m))
						}
						last := scores[i][len(scores[i])-1]
						kept := map[uint32]float32{}
						for x, id := range ids[i] {
							kept[id] = scores[i][x]
							if x > 0 && scores[i][x] > scores[i][x-1] {
								t.Fatalf("%s: out of order", name)
							}
						}
						if len(kept) != len(ids[i]) {
							t.Fatalf("%s: an id twice", name)
						}
						for id, key := range exact {
							want, abs := dot64(q[i*dim:(i+1)*dim], key)
							got, ok := kept[uint32(id)]
							if ok && math.Abs(float64(got)-want) > s.tolerance*abs+1e-30 || !ok && want > float64(last)+s.tolerance*abs {
								t.Fatalf("%s %v dim %d, key %d: %v (kept: %v, the last one has %v), want %v", name, dtype, dim, id, got, ok, last, want)
							}
						}
					}
				}
			}
		}
	})
}

// A NaN ranks as -Inf, below every number and among its equals by id.
func TestKNNNotFinite(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		inf := math.Inf(1)
		for name, s := range searches {
			for _, k := range []int{3, 40, 100} {
				const dim, m = 32, 70
				data := make([]float32, m*dim)
				for i := range m {
					switch data[i*dim] = float32(i % 7); {
					case i%5 == 1:
						data[i*dim] = float32(math.NaN())
					case i%11 == 2:
						data[i*dim] = float32(-inf)
					case i == 50:
						data[i*dim] = float32(inf)
					}
				}
				q := make([]float32, 2*dim)
				q[0], q[dim] = 1, 1
				keys := RowsF32(data, dim)
				want, products := nearest(q[:dim], wide(keys))
				ids, scores := searchAll(t, s.f, q, 2, keys, k, 33, 0)
				for i := range ids {
					for x, id := range want[:min(k, m)] {
						if ids[i][x] != uint32(id) || float64(scores[i][x]) != products[id] {
							t.Fatalf("%s k %d: rank %d is %d (%v), want %d (%v)", name, k, x, ids[i][x], scores[i][x], id, products[id])
						}
					}
				}
			}
		}
	})
}

func TestKNNDoesNotAllocate(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(53, 3))
		const n, m, dim = 20, 300, 48
		keys, q, tops := store(F16, random(r, m*dim), dim), random(r, n*dim), make([]*TopK, n)
		for i := range tops {
			tops[i] = NewTopK(10)
		}
		scratch := make([]float32, KNNScratch(dim))
		for name, s := range searches {
			if got := testing.AllocsPerRun(5, func() { s.f(q, n, keys, 0, m, 0, tops, scratch) }); got != 0 {
				t.Errorf("%s allocates %v times", name, got)
			}
		}
	})
}
