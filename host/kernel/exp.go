package kernel

import "math"

// exp32 returns e^x in f32 for x <= 0 or small positive x, within 2 ulp:
// x = n ln2 + r, a degree-6 polynomial on r, and n added to the exponent.
// Below -87.3 it returns 0, so that no subnormal weight slows the sums.
func exp32(x float32) float32 {
	const (
		log2e = 1.44269504088896341
		ln2hi = 0.693359375
		ln2lo = -2.12194440e-4
	)
	if !(x > -87.3) {
		if x != x {
			return x
		}
		return 0
	}
	if x > 88 {
		return float32(math.Exp(float64(x)))
	}
	// Adding and subtracting 1.5*2^23 rounds to the nearest integer.
	const magic = 12582912
	n := x*log2e + magic
	n -= magic
	r := x - n*ln2hi - n*ln2lo
	p := float32(1.0 / 720)
	p = p*r + 1.0/120
	p = p*r + 1.0/24
	p = p*r + 1.0/6
	p = p*r + 0.5
	p = p*r*r + r + 1
	return p * math.Float32frombits(uint32(int32(n)+127)<<23)
}

// ExpInPlace replaces every logit x by exp(x - shift) and returns the sum.
func ExpInPlace(x []float32, shift float32) float32 {
	var sum float32
	if active != nil {
		pieces(len(x), func(lo, n int) { sum += active.expSum(&x[lo], n, shift) })
		return sum
	}
	for i, v := range x {
		w := exp32(v - shift)
		x[i] = w
		sum += w
	}
	return sum
}
