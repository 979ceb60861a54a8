package kernel

import "math"

// RMSNorm writes x / rms(x) * weight to out (all of one length), with
// rms(x) = sqrt(mean(x^2) + eps). out may be x.
func RMSNorm(x, weight []float32, eps float32, out []float32) {
	n := len(x)
	weight, out = weight[:n], out[:n]
	if active != nil && n > 0 {
		inv := float32(1 / math.Sqrt(active.sumSquares(&x[0], n)/float64(n)+float64(eps)))
		active.normMul(&x[0], &weight[0], inv, &out[0], n)
		return
	}
	var ss float64
	for _, v := range x {
		ss += float64(v) * float64(v)
	}
	inv := float32(1 / math.Sqrt(ss/float64(len(x))+float64(eps)))
	for i, v := range x {
		out[i] = v * inv * weight[i]
	}
}

// RoPETable fills cos and sin (each len(invFreq)) for one position. Angles
// are formed in f32, as the models were trained, and reduced in f64; the
// results are within 2e-7.
func RoPETable(pos int, invFreq, cos, sin []float32) {
	if n := len(invFreq); active != nil && active.ropeTable != nil && n > 0 {
		active.ropeTable(float32(pos), &invFreq[0], first(cos, n), first(sin, n), n)
		return
	}
	for i, f := range invFreq {
		s, c := math.Sincos(float64(float32(pos) * f))
		cos[i], sin[i] = float32(c), float32(s)
	}
}

// RoPE rotates one head vector x (length 2*len(cos)) in place in the
// half-split layout: element i pairs with element i + len(cos).
func RoPE(x, cos, sin []float32) {
	h := len(cos)
	a, b := x[:h], x[h:2*h]
	if active != nil && h > 0 {
		active.rope(&a[0], &b[0], &cos[0], &sin[:h][0], h)
		return
	}
	for i, c := range cos {
		s := sin[i]
		u, v := a[i], b[i]
		a[i] = u*c - v*s
		b[i] = v*c + u*s
	}
}

// SiLUGate writes silu(gate) * up to gate, silu(x) = x / (1 + exp(-x)).
func SiLUGate(gate, up []float32) {
	up = up[:len(gate)]
	if active != nil {
		pieces(len(gate), func(lo, n int) { active.siluGate(&gate[lo], &up[lo], n) })
		return
	}
	for i, g := range gate {
		gate[i] = g / (1 + float32(math.Exp(-float64(g)))) * up[i]
	}
}

// AddTo adds x to y.
func AddTo(x, y []float32) { axpy(1, x, y) }
