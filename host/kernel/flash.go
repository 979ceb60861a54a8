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
	if active != nil && d > 0 {
		active.attendCausal(q, n, first, keys, values, lo, hi, scale, ps, scratch)
		return
	}
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
			k, v := widenTile(keys, j, w, kt), widenTile(values, j, w, vt)
			mulNT(qt[:m*d], m, k, w, d, s, tileRows)
			for x := range m {
				// Row j+y is visible while j+y <= first+i+x.
				if vis := min(w, first+i+x-j+1); vis > 0 {
					ps[i+x].addTile(s[x*tileRows:][:vis], v)
				}
			}
		}
	}
}

// addTile accounts for the tokens whose logits are given; the logits are
// replaced by weights. v holds their values, len(Acc) columns.
func (p *Partial) addTile(logits, v []float32) {
	m := p.Max
	for _, l := range logits {
		if l > m {
			m = l
		}
	}
	if math.IsInf(float64(m), -1) {
		return
	}
	if m > p.Max {
		if p.Sum != 0 {
			c := exp32(p.Max - m)
			p.Sum *= c
			for i := range p.Acc {
				p.Acc[i] *= c
			}
		}
		p.Max = m
	}
	p.Sum += ExpInPlace(logits, m)
	addWeighted(logits, v, p.Acc)
}
