package kernel

import "math"

// CausalQueries is how many queries [AttendCausal] advances together over one
// packing of the keys and values: a caller does well to hand it about as many
// at once.
const CausalQueries = 256

// keyTile is the number of tokens that are packed at once.
const keyTile = 256

// Where keys and values are read as they are stored, up to rowQueries queries
// go over rowTile tokens at once.
const (
	rowQueries = 32
	rowTile    = 64
)

// CausalScratch is the number of f32 that [AttendCausal] needs as scratch for
// n queries of head dimension dim.
func CausalScratch(n, dim int) int {
	if byRows(n, dim) {
		return 2*rowTile*dim + rowQueries*(rowTile+dim)
	}
	n = min(n, CausalQueries)
	wide := active.tiles.panels(dim)
	return keyTile*(dim+wide) + n*(dim+wide) + active.tiles.rows*keyTile
}

// byRows reports whether n queries attend to rows as they are stored.
func byRows(n, dim int) bool {
	return active == nil || n <= MaxQueries || dim == 0
}

// AttendCausal adds rows [lo, hi) of keys and values to the states of n
// queries, query i (row i of q, n x keys.Dim) seeing only rows up to
// first+i/group: the queries of group heads that share the keys come token by
// token. It goes in blocks as in FlashAttention (arXiv 2205.14135), with
// logit = scale * q.k. Rows are numbered like first: row r of keys is the
// token at position r; first is negative where the queries begin before row 0.
// With first >= hi every query sees all of the range, as a decode step does.
// Several calls over disjoint ranges build up one softmax. scratch has
// [CausalScratch](n, keys.Dim) f32.
//
// Up to [MaxQueries] queries stream keys and values once, as they are stored.
// For more of them both are packed, once for every [CausalQueries]. What a
// query does not see has no influence on it, whatever it holds.
func AttendCausal(q []float32, n, group, first int, keys, values Rows, lo, hi int, scale float32, ps []Partial, scratch []float32) {
	rows, step := byRows(n, keys.Dim), CausalQueries
	if rows {
		step = rowQueries
	}
	for i := 0; i < n; i += step {
		m := min(step, n-i)
		c := causal{first: first, at: i, group: group, keys: keys, values: values, lo: lo}
		c.hi = min(hi, c.sees(m-1))
		if rows {
			c.attendRows(q[i*keys.Dim:(i+m)*keys.Dim], scale, ps[i:i+m], scratch)
		} else {
			c.attendTiles(q[i*keys.Dim:(i+m)*keys.Dim], scale, ps[i:i+m], scratch)
		}
	}
}

// causal is the attention of a block of queries to rows [lo, hi) of keys and
// values.
type causal struct {
	first, group int // of all queries
	at           int // number of the block's query 0 among them
	keys, values Rows
	lo, hi       int
}

// sees returns how many rows, from row 0 on, query i of the block sees; it is
// negative for a token that stands before row 0.
func (c *causal) sees(i int) int { return c.first + (c.at+i)/c.group + 1 }

// attendRows is [AttendCausal] on keys and values as they are stored: these
// are read once for all of the queries.
func (c *causal) attendRows(q []float32, scale float32, ps []Partial, scratch []float32) {
	d, n := c.keys.Dim, len(ps)
	kt, scratch := scratch[:rowTile*d], scratch[rowTile*d:]
	vt, scratch := scratch[:rowTile*d], scratch[rowTile*d:]
	s, qt := scratch[:rowQueries*rowTile], scratch[rowQueries*rowTile:][:n*d]
	for x, v := range q {
		qt[x] = v * scale
	}
	if active != nil && d > 0 && c.sees(0) >= c.hi {
		c.lo = active.attendStreams(c, qt, ps, s)
	}
	for j := c.lo; j < c.hi; j += rowTile {
		w := min(rowTile, c.hi-j)
		k, v, at := c.keys, c.values, j
		if active == nil {
			k, v, at = widenTile(k, j, w, kt), widenTile(v, j, w, vt), 0
		}
		mulNT(qt, n, k, at, w, s, rowTile)
		for x := range ps {
			if vis := min(w, c.sees(x)-j); vis > 0 {
				ps[x].addTile(s[x*rowTile:][:vis], v, at)
			}
		}
	}
}

// attendStreams accounts for tokens from c.lo on that all of the queries (q,
// scaled) see, and returns the first that it left. A tile's tokens come from
// several places of the range, so that memory is read in several streams.
func (o *ops) attendStreams(c *causal, q []float32, ps []Partial, s []float32) int {
	d, size := c.keys.Dim, c.values.rowBytes()
	apart := (c.hi - c.lo) / streams
	for at := 0; at < apart; at += rowTile / streams {
		j, each := c.lo+at, min(rowTile/streams, apart-at)
		for x := 0; x < len(ps); x += 4 {
			o.few(q[x*d:], min(4, len(ps)-x), c.keys, j, apart, each, s[x*rowTile:], rowTile)
		}
		for x := range ps {
			ps[x].weigh(s[x*rowTile:][:streams*each], ps[x].Acc)
		}
		base := c.values.from(j, (streams-1)*apart+each)
		for x := 0; x < len(ps); x += 4 {
			// A query that is missing is the last one again, which is written
			// twice.
			last := min(3, len(ps)-1-x)
			x1, x2, x3 := x+min(1, last), x+min(2, last), x+min(3, last)
			o.tiles.mix[c.values.DType][min(last, 2)](&s[x*rowTile], &s[x1*rowTile], &s[x2*rowTile], &s[x3*rowTile],
				base, apart*size, size, each, d,
				first(ps[x].Acc, d), first(ps[x1].Acc, d), first(ps[x2].Acc, d), first(ps[x3].Acc, d))
		}
	}
	return c.lo + streams*apart
}

// weigh replaces logits by weights and adds them to the sum; acc, which holds
// the weighted values so far, is rescaled where a logit lies above Max.
func (p *Partial) weigh(logits, acc []float32) {
	m, sum := active.tiles.softmax(&logits[0], len(logits), p.Max)
	if m < -math.MaxFloat32 {
		for _, l := range logits {
			if l != l {
				p.Sum += l // an undefined logit spoils the softmax
			}
		}
		clear(logits)
		return
	}
	p.raiseIn(m, acc)
	p.Sum += sum
}

// attendTiles is [AttendCausal] in register tiles: logits of a tile's rows of
// queries with all packed keys, their weights, and these with the values,
// before the next rows of queries, so that the logits stay in the first-level
// cache.
func (c *causal) attendTiles(q []float32, scale float32, ps []Partial, scratch []float32) {
	t := &active.tiles
	d, n := c.keys.Dim, len(ps)
	wide := t.panels(d)
	cut := func(n int) []float32 {
		s := scratch[:n]
		scratch = scratch[n:]
		return s
	}
	kt, vt := cut(keyTile*d), cut(keyTile*wide)
	qt, acc := cut(n*d), cut(n*wide)
	s := cut(t.rows * keyTile)
	for x, v := range q {
		qt[x] = v * scale
	}
	clear(acc)
	for x := range ps {
		copy(acc[x*wide:], ps[x].Acc)
	}
	height := t.heights(n)
	for j := c.lo; j < c.hi; j += keyTile {
		w := min(keyTile, c.hi-j)
		t.packRows(kt, c.keys, j, w, 0, d)
		v := c.values.padded(j, w, wide, vt)
		for r := 0; r < n; r += height {
			rows := min(height, n-r)
			most := min(w, c.sees(r+rows-1)-j)
			if most <= 0 {
				continue
			}
			for k := 0; k < most; k += t.columns {
				t.mul[rows-1](&qt[r*d], 4*d, &kt[k*d], 4*t.columns, d, &s[k], 4*keyTile, 0)
			}
			for x := range rows {
				if vis := min(w, c.sees(r+x)-j); vis > 0 {
					ps[r+x].weigh(s[x*keyTile:][:vis], acc[(r+x)*wide:][:d])
				}
			}
			// What all rows see is added for all of them, the rest one by one:
			// 0 times a value that is no number would not be 0.
			common := max(min(w, c.sees(r)-j), 0)
			t.addValues(s, rows, v, wide, 0, common, acc[r*wide:])
			for x := range rows {
				t.addValues(s[x*keyTile:], 1, v, wide, common, min(w, c.sees(r+x)-j), acc[(r+x)*wide:])
			}
		}
	}
	for x := range ps {
		copy(ps[x].Acc, acc[x*wide:][:d])
	}
}

// addValues adds the values of tokens [lo, hi), weighted by columns [lo, hi)
// of the rows of s, to the rows of acc; v and acc have wide columns.
func (t *tileOps) addValues(s []float32, rows int, v []float32, wide, lo, hi int, acc []float32) {
	if lo >= hi {
		return
	}
	for k := 0; k < wide; k += t.columns {
		t.mul[rows-1](&s[lo], 4*keyTile, &v[lo*wide+k], 4*wide, hi-lo, &acc[k], 4*wide, 1)
	}
}

// padded returns rows [lo, lo+m) as f32 rows of wide columns: in place, or in
// dst, where the columns beyond Dim keep what they hold.
func (r Rows) padded(lo, m, wide int, dst []float32) []float32 {
	if r.DType == F32 && r.Dim == wide {
		return r.F32[lo*wide : (lo+m)*wide]
	}
	if r.Dim == wide {
		active.widenRows(r, lo, m, dst)
		return dst
	}
	for i := range m {
		r.Widen(lo+i, dst[i*wide:][:r.Dim])
	}
	return dst
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
