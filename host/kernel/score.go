package kernel

import "math"

// ScoreList writes out[j][i] = qs[j] . rows[ids[i]] for each of the 1 to
// [MaxQueries] queries (f32, length rows.Dim). scratch has length rows.Dim.
func ScoreList(qs [][]float32, rows Rows, ids []uint32, out [][]float32, scratch []float32) {
	if active != nil && rows.Dim > 0 {
		active.scoreList(qs, rows, ids, out)
		return
	}
	for i, id := range ids {
		row := widened(rows, int(id), scratch)
		for j, q := range qs {
			out[j][i] = Dot(q, row)
		}
	}
}

// ScoreRange writes out[j][i-lo] = qs[j] . rows[i] for i in [lo, hi).
// scratch has length rows.Dim.
func ScoreRange(qs [][]float32, rows Rows, lo, hi int, out [][]float32, scratch []float32) {
	if active != nil && rows.Dim > 0 {
		active.scoreRange(qs, rows, lo, hi, out)
		return
	}
	for i := lo; i < hi; i++ {
		row := widened(rows, i, scratch)
		for j, q := range qs {
			out[j][i-lo] = Dot(q, row)
		}
	}
}

// widened returns row i as f32: a view for f32 rows, else a copy in scratch.
func widened(rows Rows, i int, scratch []float32) []float32 {
	if rows.DType == F32 {
		return rows.F32[i*rows.Dim : (i+1)*rows.Dim]
	}
	rows.Widen(i, scratch)
	return scratch[:rows.Dim]
}

// Dot returns the inner product of two vectors of the same length, summed in
// four interleaved f32 accumulators.
func Dot(a, b []float32) float32 {
	b = b[:len(a)]
	var s0, s1, s2, s3 float32
	for len(a) >= 4 && len(b) >= 4 {
		s0 += a[0] * b[0]
		s1 += a[1] * b[1]
		s2 += a[2] * b[2]
		s3 += a[3] * b[3]
		a, b = a[4:], b[4:]
	}
	for i, v := range a {
		s0 += v * b[i]
	}
	return (s0 + s1) + (s2 + s3)
}

// TopK collects the k best (score, id) pairs of one query. Equal scores are
// ordered by id, lower first, so that every implementation returns the same
// set. A NaN score ranks below every number.
type TopK struct {
	k    int
	heap []scored // min-heap: the worst kept entry is at index 0
}

type scored struct {
	score float32
	id    uint32
}

// NewTopK returns a collector for k >= 0 entries.
func NewTopK(k int) *TopK { return &TopK{k: k, heap: make([]scored, 0, min(k, 1024))} }

// Reset empties the collector and sets its size.
func (t *TopK) Reset(k int) { t.k, t.heap = k, t.heap[:0] }

// Len returns the number of entries kept.
func (t *TopK) Len() int { return len(t.heap) }

func worse(a, b scored) bool {
	if a.score != b.score {
		return a.score < b.score
	}
	return a.id > b.id
}

// Push offers ids first, first+1, ... with the given scores.
func (t *TopK) Push(first uint32, scores []float32) {
	for i := 0; i < len(scores); i++ {
		if i = t.skip(scores, i); i < len(scores) {
			t.push(scored{scores[i], first + uint32(i)})
		}
	}
}

// PushList offers ids[i] with scores[i].
func (t *TopK) PushList(ids []uint32, scores []float32) {
	for i := 0; i < len(scores); i++ {
		if i = t.skip(scores, i); i < len(scores) {
			t.push(scored{scores[i], ids[i]})
		}
	}
}

// skip returns the first index from i on whose score may enter the full
// collector: most do not, and a vector compare passes over them at once. An
// equal score may, by its id.
func (t *TopK) skip(scores []float32, i int) int {
	if active == nil || len(t.heap) < t.k || t.k == 0 {
		return i
	}
	least := t.heap[0].score
	if scores[i] >= least || least < -math.MaxFloat32 { // a NaN counts as -Inf
		return i
	}
	for i < len(scores) {
		n := min(callElements, len(scores)-i)
		at := active.firstAtLeast(&scores[i], n, least)
		i += at
		if at < n {
			break
		}
	}
	return i
}

// least returns a score below which nothing enters: the worst one kept when
// the collector is full, else -Inf.
func (t *TopK) least() float32 {
	switch {
	case t.k == 0:
		return float32(math.Inf(1))
	case len(t.heap) < t.k:
		return float32(math.Inf(-1))
	}
	return t.heap[0].score
}

func (t *TopK) push(e scored) {
	if e.score != e.score {
		e.score = float32(math.Inf(-1))
	}
	switch {
	case len(t.heap) < t.k:
		t.heap = append(t.heap, e)
		for i := len(t.heap) - 1; i > 0; {
			p := (i - 1) / 2
			if !worse(t.heap[i], t.heap[p]) {
				break
			}
			t.heap[i], t.heap[p] = t.heap[p], t.heap[i]
			i = p
		}
	case t.k > 0 && worse(t.heap[0], e):
		t.heap[0] = e
		t.down(len(t.heap))
	}
}

// down restores the heap property of the first n entries from the root.
func (t *TopK) down(n int) {
	for i := 0; ; {
		c := 2*i + 1
		if c >= n {
			return
		}
		if c+1 < n && worse(t.heap[c+1], t.heap[c]) {
			c++
		}
		if !worse(t.heap[c], t.heap[i]) {
			return
		}
		t.heap[i], t.heap[c] = t.heap[c], t.heap[i]
		i = c
	}
}

// Take writes the kept entries best first to ids and scores (each at least
// Len long), empties the collector and returns the count.
func (t *TopK) Take(ids []uint32, scores []float32) int {
	n := len(t.heap)
	for m := n; m > 0; m-- {
		ids[m-1], scores[m-1] = t.heap[0].id, t.heap[0].score
		t.heap[0] = t.heap[m-1]
		t.down(m - 1)
	}
	t.heap = t.heap[:0]
	return n
}
