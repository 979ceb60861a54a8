package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestArgMax(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	atEveryLevel(t, func(t *testing.T) {
		for _, c := range []struct {
			x    []float32
			want int
		}{
			{nil, 0}, {[]float32{-5}, 0}, {[]float32{1, 3, 3, 2}, 1}, {[]float32{-inf, -inf}, 0},
			{[]float32{nan, -inf, -4, nan}, 2}, {[]float32{nan, nan}, 0}, {[]float32{1, inf, nan, inf}, 1},
		} {
			if got := ArgMax(c.x); got != c.want {
				t.Errorf("ArgMax(%v) = %d, want %d", c.x, got, c.want)
			}
		}
		r := rand.New(rand.NewPCG(41, 1))
		for _, n := range []int{1, 7, 16, 33, 1000, callElements, callElements + 1, 2*callElements + 5} {
			x := random(r, n)
			at := r.IntN(n)
			x[at] = 100
			if at+1 < n {
				x[at+1+r.IntN(n-at-1)] = 100
			}
			if got := ArgMax(x); got != at {
				t.Errorf("%d elements: %d, want %d", n, got, at)
			}
		}
	})
}
