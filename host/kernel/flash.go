package kernel

import "math"

// queryTile is the number of queries that [AttendCausal] advances together.
const queryTile = 32

// CausalScratch is the number of f32 that [AttendCausal] needs as scratch for
// head dimension dim.
func CausalScratch(dim int) int { return 2*tileRows*dim + queryTile*tileRows + queryTile*dim }

// AttendCausal adds rows [lo, hi) of keys and values to the states of n
// queries, query i (row i of q, n x keys.Dim) seeing only rows up to
// first+i, in blocks as in FlashAttention (arXiv 2205.14135), with
// logit = scale * q.k. Rows are numbered like first: row r of keys is the
// token at position r. With first >= hi every query sees all of the range, as
// a decode step does. Several calls over disjoint ranges build up one softmax.
func AttendCausal(q []float32, n, first int, keys, values Rows, lo, hi int, scale float32, ps []Partial, scratch []float32) {
	d := keys.Dim
	kt, scratch := scratch[:tileRows*d], scratch[tileRows*d:]
	vt, scratch := scratch[:tileRows*d], scratch[tileRows*d:]
	s, qt := scratch[:queryTile*tileRows], scratch[queryTile*tileRows:][:queryTile*d]
	for i := 0; i < n; i += queryTile {
		m := min(queryTile, n-i)
		for x, v := range q[i*d : (i+m)*d] {
			qt[x] = v * scale
		}
		end := min(hi, first+i+m)
		for j := lo; j < end; j += tileRows {
			w := min(tileRows, end-j)
			k, v, at := keys, values, j
			if active == nil || m > fewRows {
				k, v, at = widenTile(keys, j, w, kt), widenTile(values, j, w, vt), 0
			}
			mulNT(qt[:m*d], m, k, at, w, s, tileRows)
			for x := range m {
				// Row j+y is visible while j+y <= first+i+x.
				if vis := min(w, first+i+x-j+1); vis > 0 {
					ps[i+x].addTile(s[x*tileRows:][:vis], v, at)
				}
			}
		}
	}
}

// addTile accounts for tokens whose logits are given and whose values are the
// rows of v from lo on, f32 unless a vector level is active. The logits are
// replaced by weights.
func (p *Partial) addTile(logits []float32, v Rows, lo int) {
	if active != nil && v.Dim > 0 {
		active.addTile(p, logits, v, lo, nil)
		return
	}
	m := p.Max
	for _, l := range logits {
		m = max(m, l)
	}
	if math.IsInf(float64(m), -1) {
		return
	}
	p.raise(m)
	p.Sum += ExpInPlace(logits, m)
	addWeighted(logits, v.F32[lo*v.Dim:(lo+len(logits))*v.Dim], p.Acc)
}
