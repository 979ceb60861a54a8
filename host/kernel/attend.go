package kernel

import "math"

// Partial is the running softmax state of one query over a set of tokens:
// the largest logit seen, the sum of exp(logit-Max) and the sum of
// exp(logit-Max)*value. States over disjoint sets merge exactly
// ([Partial.Merge]); the form is that of online softmax (Milakov and
// Gimelshein, arXiv 1805.02867) and of FlashDecoding's split reduction.
type Partial struct {
	Max float32   // -Inf while empty
	Sum float32   // 0 while empty
	Acc []float32 // head dimension, unnormalised
}

// Reset empties the state; Acc keeps its length.
func (p *Partial) Reset() {
	p.Max, p.Sum = float32(math.Inf(-1)), 0
	clear(p.Acc)
}

// Empty reports whether no token with weight was added.
func (p *Partial) Empty() bool { return p.Sum == 0 }

// LSE returns the natural log of the sum of exp(logit): -Inf while empty.
func (p *Partial) LSE() float32 {
	if p.Empty() {
		return float32(math.Inf(-1))
	}
	return p.Max + float32(math.Log(float64(p.Sum)))
}

// Output writes the attention output, Acc/Sum, to out; zeros while empty.
func (p *Partial) Output(out []float32) {
	if p.Empty() {
		clear(out[:len(p.Acc)])
		return
	}
	inv := 1 / p.Sum
	for i, v := range p.Acc {
		out[i] = v * inv
	}
}

// Add accounts for one token with the given logit and value.
func (p *Partial) Add(logit float32, value []float32) {
	w := p.weight(logit)
	if w == 0 {
		return
	}
	axpy(w, value, p.Acc)
}

// raise rescales the state so that a logit of m does not lie above Max.
func (p *Partial) raise(m float32) { p.raiseIn(m, p.Acc) }

// raiseIn is raise with the weighted sum of values in acc.
func (p *Partial) raiseIn(m float32, acc []float32) {
	if !(m > p.Max) {
		return
	}
	if p.Sum != 0 {
		c := exp32(p.Max - m)
		p.Sum *= c
		rescale(c, acc)
	}
	p.Max = m
}

// weight makes room for logit below Max, adds the token's weight to Sum and
// returns it.
func (p *Partial) weight(logit float32) float32 {
	p.raise(logit)
	if math.IsInf(float64(logit), -1) {
		return 0
	}
	w := exp32(logit - p.Max)
	p.Sum += w
	return w
}

// Merge adds the tokens of o, a state over a disjoint set; o is not changed.
func (p *Partial) Merge(o *Partial) {
	if o.Empty() {
		return
	}
	if p.Empty() {
		p.Max, p.Sum = o.Max, o.Sum
		copy(p.Acc, o.Acc)
		return
	}
	m := max(p.Max, o.Max)
	a, b := exp32(p.Max-m), exp32(o.Max-m)
	p.Max, p.Sum = m, a*p.Sum+b*o.Sum
	for i, v := range o.Acc {
		p.Acc[i] = a*p.Acc[i] + b*v
	}
}

// AttendList adds tokens ids to one query's state, with
// logit = scale * q.k + bias[i]; a nil bias is zero.
// scratch has length keys.Dim+values.Dim.
func AttendList(q []float32, keys, values Rows, ids []uint32, bias []float32, scale float32, p *Partial, scratch []float32) {
	if active != nil && keys.Dim > 0 && values.Dim > 0 {
		active.attendList(q, keys, values, ids, bias, scale, p, scratch)
		return
	}
	ks, vs := scratch[:keys.Dim], scratch[keys.Dim:]
	for i, id := range ids {
		logit := scale * Dot(q, widened(keys, int(id), ks))
		if bias != nil {
			logit += bias[i]
		}
		p.Add(logit, widened(values, int(id), vs))
	}
}

// axpy adds w*x to y.
func axpy(w float32, x, y []float32) {
	y = y[:len(x)]
	if active != nil {
		pieces(len(x), func(lo, n int) { active.axpy(w, &x[lo], &y[lo], n) })
		return
	}
	for len(x) >= 4 && len(y) >= 4 {
		y[0] += w * x[0]
		y[1] += w * x[1]
		y[2] += w * x[2]
		y[3] += w * x[3]
		x, y = x[4:], y[4:]
	}
	for i, v := range x {
		y[i] += w * v
	}
}

// rescale multiplies x by c.
func rescale(c float32, x []float32) {
	if active != nil {
		pieces(len(x), func(lo, n int) { active.scale(c, &x[lo], n) })
		return
	}
	for i := range x {
		x[i] *= c
	}
}
