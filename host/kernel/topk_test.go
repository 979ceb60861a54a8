package kernel

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// What is kept equals a sort of everything, ties and what is no number among
// it, for collectors that are reused.
func TestTopKAgainstSort(t *testing.T) {
	r := rand.New(rand.NewPCG(41, 1))
	inf := float32(math.Inf(1))
	top := NewTopK(0)
	for trial := range 300 {
		k, n := r.IntN(200), r.IntN(4000)
		type pair struct {
			score float32
			id    uint32
		}
		var all []pair
		top.Reset(k)
		for i := range n {
			p := pair{float32(r.NormFloat64()), uint32(i)}
			switch trial % 4 {
			case 1:
				p.score = float32(r.IntN(5)) - 2 // ties, and zeros of both signs
				if p.score == 0 && r.IntN(2) == 0 {
					p.score = float32(math.Copysign(0, -1))
				}
			case 2:
				p.score = float32(i) // ever better
			case 3:
				p.score = []float32{inf, -inf, float32(math.NaN()), 1, math.MaxFloat32, -math.MaxFloat32, math.SmallestNonzeroFloat32}[r.IntN(7)]
			}
			p.id = uint32(r.IntN(1<<31))<<1 | uint32(i&1)
			all = append(all, p)
			top.push(p.score, p.id)
			if p.score != p.score {
				all[i].score = -inf
			}
		}
		slices.SortStableFunc(all, func(a, b pair) int {
			return cmp.Or(-cmp.Compare(a.score, b.score), cmp.Compare(a.id, b.id))
		})
		all = slices.Compact(all)
		ids, scores := make([]uint32, k), make([]float32, k)
		if got := top.Len(); got != min(k, n) {
			t.Fatalf("trial %d: %d of %d kept, want %d", trial, got, n, k)
		}
		kept := top.Take(ids, scores)
		for i := range kept {
			if ids[i] != all[i].id || scores[i] != all[i].score {
				t.Fatalf("trial %d, place %d: %d %v, want %+v", trial, i, ids[i], scores[i], all[i])
			}
		}
		if top.Len() != 0 {
			t.Fatal("not empty after Take")
		}
	}
}

func TestSelectLargest(t *testing.T) {
	r := rand.New(rand.NewPCG(42, 2))
	for trial := range 500 {
		x := make([]uint64, 1+r.IntN(700))
		for i := range x {
			switch trial % 4 {
			case 0:
				x[i] = r.Uint64()
			case 1:
				x[i] = uint64(r.IntN(3))
			case 2:
				x[i] = uint64(i) << 60
			case 3:
				x[i] = math.MaxUint64 - uint64(i)
			}
		}
		k := 1 + r.IntN(len(x))
		want := slices.Clone(x)
		slices.Sort(want)
		selectLargest(x, k)
		got := slices.Clone(x[:k])
		slices.Sort(got)
		if !slices.Equal(got, want[len(want)-k:]) {
			t.Fatalf("trial %d: the %d largest of %d are wrong", trial, k, len(x))
		}
	}
}
