package kernel

import "math"

// ArgMax returns the index of the largest element of x, the first of equal
// ones. NaN ranks below every number; 0 when no element is above -Inf.
func ArgMax(x []float32) int {
	best, at := float32(math.Inf(-1)), 0
	if active != nil {
		pieces(len(x), func(lo, n int) {
			if m := active.maxOf(&x[lo], n); m > best {
				best, at = m, lo+active.firstAtLeast(&x[lo], n, m)
			}
		})
		return at
	}
	for i, v := range x {
		if v > best {
			best, at = v, i
		}
	}
	return at
}
