package compute

import (
	"context"
	"math"

	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
)

// attendSpan is the most tokens that one unit of work attends over.
const attendSpan = 2048

// AttendStatic splits the static tokens over KV heads and spans of tokens
// and merges the spans' states in order, so that the sum does not depend on
// the number of cores.
func (c *cpu) AttendStatic(view *kv.View, layer int, queries []float32, parts []kernel.Partial) error {
	kvc := view.Context()
	geo := kvc.Geometry()
	d, group := geo.HeadDim, len(parts)/geo.KVHeads
	var spans []kv.Range
	for r := range view.Ranges(layer, kv.Static) {
		for lo := r.Lo; lo < r.Hi; lo += attendSpan {
			spans = append(spans, kv.Range{Lo: lo, Hi: min(lo+attendSpan, r.Hi)})
		}
	}
	states := newPartials(len(spans)*len(parts), d)
	scale := float32(1 / math.Sqrt(float64(d)))
	err := c.parallel(context.Background(), geo.KVHeads*len(spans), kernel.CausalScratch(group, d), func(i int, scratch []float32) {
		head, span := i%geo.KVHeads, i/geo.KVHeads
		q := queries[head*group*d:][:group*d]
		ps := states[span*len(parts)+head*group:][:group]
		for s := range kvc.Segments(layer, head, spans[span].Lo, spans[span].Hi) {
			kernel.AttendCausal(q, group, group, s.Keys.N, s.Keys, s.Values, 0, s.Keys.N, scale, ps, scratch)
		}
	})
	if err != nil {
		return err
	}
	for i := range states {
		parts[i%len(parts)].Merge(&states[i])
	}
	return nil
}

// newPartials returns n empty states of head dimension d.
func newPartials(n, d int) []kernel.Partial {
	acc := make([]float32, n*d)
	ps := make([]kernel.Partial, n)
	for i := range ps {
		ps[i].Acc = acc[i*d : (i+1)*d]
		ps[i].Reset()
	}
	return ps
}

// AttendHits attends head by head; the heads run in parallel.
func (c *cpu) AttendHits(view *kv.View, layer int, queries []float32, ids [][]uint32, bias [][]float32, parts []kernel.Partial) error {
	kvc := view.Context()
	geo := kvc.Geometry()
	d, group := geo.HeadDim, len(parts)/geo.KVHeads
	scale := float32(1 / math.Sqrt(float64(d)))
	return c.parallel(context.Background(), len(parts), 2*d, func(h int, scratch []float32) {
		list := newLister(kvc, layer, h/group)
		q := queries[h*d : (h+1)*d]
		list.each(ids[h], func(seg kv.Segment, rows []uint32, lo, hi int) {
			var b []float32
			if bias[h] != nil {
				b = bias[h][lo:hi]
			}
			kernel.AttendList(q, seg.Keys, seg.Values, rows, b, scale, &parts[h], scratch)
		})
	})
}

// lister turns lists of positions into lists of rows of a context's segments.
type lister struct {
	segs []kv.Segment
	rows []uint32
}

func newLister(kvc *kv.Context, layer, head int) *lister {
	l := &lister{}
	l.reset(kvc, layer, head)
	return l
}

func (l *lister) reset(kvc *kv.Context, layer, head int) {
	l.segs = l.segs[:0]
	for s := range kvc.Segments(layer, head, 0, math.MaxInt) {
		l.segs = append(l.segs, s)
	}
}

// each calls f for runs ids[lo:hi] that lie in one segment, with their rows.
// In the first segment, where a document's tokens are, ids are rows.
func (l *lister) each(ids []uint32, f func(seg kv.Segment, rows []uint32, lo, hi int)) {
	for lo := 0; lo < len(ids); {
		seg := l.find(int(ids[lo]))
		hi := lo
		for hi < len(ids) && int(ids[hi]) >= seg.Start && int(ids[hi]) < seg.Start+seg.Keys.N {
			hi++
		}
		rows := ids[lo:hi]
		if seg.Start > 0 {
			l.rows = l.rows[:0]
			for _, id := range rows {
				l.rows = append(l.rows, id-uint32(seg.Start))
			}
			rows = l.rows
		}
		f(seg, rows, lo, hi)
		lo = hi
	}
}

func (l *lister) find(pos int) kv.Segment {
	i := len(l.segs) - 1
	for i > 0 && l.segs[i].Start > pos {
		i--
	}
	return l.segs[i]
}

func (c *cpu) Score(kvc *kv.Context, layer, kvHead int, queries [][]float32, ids []uint32, out [][]float32) {
	b := c.borrow(kvc.Geometry().HeadDim)
	defer c.put(b)
	part := make([][]float32, len(queries))
	newLister(kvc, layer, kvHead).each(ids, func(seg kv.Segment, rows []uint32, lo, hi int) {
		for j := range part {
			part[j] = out[j][lo:hi]
		}
		kernel.ScoreList(queries, seg.Keys, rows, part, *b)
	})
}

func (c *cpu) ScoreRange(kvc *kv.Context, layer, kvHead int, queries [][]float32, r kv.Range, out [][]float32) {
	b := c.borrow(kvc.Geometry().HeadDim)
	defer c.put(b)
	part := make([][]float32, len(queries))
	for s := range kvc.Segments(layer, kvHead, r.Lo, r.Hi) {
		for j := range part {
			part[j] = out[j][s.Start-r.Lo:]
		}
		kernel.ScoreRange(queries, s.Keys, 0, s.Keys.N, part, *b)
	}
}

func (c *cpu) TopK(kvc *kv.Context, layer, kvHead int, queries [][]float32, r kv.Range, tops []*kernel.TopK) {
	b := c.borrow(kvc.Geometry().HeadDim)
	defer c.put(b)
	for s := range kvc.Segments(layer, kvHead, r.Lo, r.Hi) {
		kernel.TopKRange(queries, s.Keys, 0, s.Keys.N, uint32(s.Start), tops, *b)
	}
}
