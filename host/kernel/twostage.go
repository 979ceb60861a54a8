package kernel

import (
	"fmt"
	"math"
	"sort"
)

// CodedKeys is a stretch of one head's keys with their codes: row i of Keys is
// key i of Codes. Keys [Lo, Hi) are to be searched; the id of key i is First+i.
type CodedKeys struct {
	Codes  *Codes
	Keys   Rows
	Lo, Hi int
	First  uint32
}

// TwoStage finds the keys of largest inner product with a query in two
// stages: a scan of all codes names candidates, and inner products of the f32
// query with the stored keys choose among them. It holds scratch memory that
// grows to what a search needs, and serves one goroutine at a time; the zero
// value is ready.
type TwoStage struct {
	queries CodeQueries
	sample  [MaxQueries][]float32
	found   [MaxQueries]Candidates
	least   [MaxQueries]float32
	scores  []float32
	index   []uint32
	run     [1]uint32
	row     []float32 // scratch of a dimension
}

// Search collects the k best keys of each of 1 to [MaxQueries] queries in
// tops[j], which it resets: the best of about want candidates a query (k if
// that is more), and min(k, keys) of them always. All parts have one coder.
// It returns the number of (query, key) pairs whose inner product was computed.
//
// When rest is not nil, rest[j] becomes the softmax state (Max and Sum) of
// all keys but those returned, with logits scale * q.k: exact ones of
// candidates, estimates of the others. scale is not negative.
func (t *TwoStage) Search(qs [][]float32, parts []CodedKeys, k, want int, tops []*TopK, rest []Partial, scale float32) (scored int) {
	n := 0
	for _, p := range parts {
		if p.Codes.coder != parts[0].Codes.coder || p.Lo < 0 || p.Lo > p.Hi || p.Hi > min(p.Codes.n, p.Keys.N) {
			panic(fmt.Sprintf("keys [%d, %d) of %d with %d codes, or parts with several coders", p.Lo, p.Hi, p.Keys.N, p.Codes.n))
		}
		n += p.Hi - p.Lo
	}
	want = max(want, k)
	if len(parts) > 0 && cap(t.row) < parts[0].Keys.Dim {
		t.row = make([]float32, parts[0].Keys.Dim)
	}
	t.reset(len(qs), rest, min(2*want+chunkKeys, n))
	if n <= want {
		for j := range qs {
			t.found[j].addAll(parts)
		}
	} else {
		t.queries.Set(parts[0].Codes.coder, qs)
		t.chooseThresholds(parts, n, want)
		t.scan(parts, want, rest, scale)
		if t.short(len(qs), k) {
			// The sample misled: take all, and keep the best on the way.
			t.reset(len(qs), rest, 0)
			for j := range qs {
				t.least[j] = float32(math.Inf(-1))
			}
			t.scan(parts, want, rest, scale)
		}
	}
	for j, q := range qs {
		if found := &t.found[j]; len(found.IDs) < min(k, n) {
			// Too few keys have an estimate.
			if rest != nil {
				rest[j].Reset()
			}
			found.reset(n)
			found.addAll(parts)
		}
		var r *Partial
		if rest != nil {
			r = &rest[j]
		}
		scored += len(t.found[j].IDs)
		t.choose(q, parts, t.found[j].IDs, k, tops[j], r, scale)
	}
	return scored
}

// reset empties the results of n queries and makes room for so many
// candidates each.
func (t *TwoStage) reset(n int, rest []Partial, room int) {
	for j := range n {
		t.found[j].reset(room)
		if rest != nil {
			rest[j].Reset()
		}
	}
}

// short reports whether a query has fewer than k candidates.
func (t *TwoStage) short(n, k int) bool {
	for j := range n {
		if len(t.found[j].IDs) < k {
			return true
		}
	}
	return false
}

func (c *Candidates) reset(room int) {
	if cap(c.IDs) < room {
		c.IDs, c.Bounds = make([]uint32, room), make([]float32, room)
	}
	c.IDs, c.Bounds = c.IDs[:0], c.Bounds[:0]
}

// addAll makes candidates of all keys; places count over the parts.
func (c *Candidates) addAll(parts []CodedKeys) {
	place := 0
	for _, p := range parts {
		for i := p.Lo; i < p.Hi; i++ {
			c.IDs = append(c.IDs, uint32(place+i))
		}
		place += p.Hi
	}
}

// The sample that a threshold is taken from has leastSample to mostSample keys,
// so many that about sampleWanted are above it: then the number of candidates
// mostly comes out within a fifth of what is wanted.
const (
	sampleWanted = 32
	leastSample  = 2048
	mostSample   = 1 << 14
	runKeys      = 4 * blockKeys // that lie together
)

// chooseThresholds bounds keys in evenly spaced runs and sets each query's
// threshold so that about want of the n keys reach it.
func (t *TwoStage) chooseThresholds(parts []CodedKeys, n, want int) {
	keys := min(max(sampleWanted*(n/want), leastSample), mostSample, n)
	step := max(1, n/keys)
	m := 0
	s := &t.queries
	for j := range s.n {
		t.sample[j] = t.sample[j][:0]
	}
	skip := 0 // runs before the next one
	for _, p := range parts {
		run, end := p.Lo/runKeys+skip, (p.Hi+runKeys-1)/runKeys
		for ; run < end; run += step {
			t.prefetchRun(p.Codes, run+step)
			p.Codes.each(s, max(run*runKeys, p.Lo), min((run+1)*runKeys, p.Hi), true, func(lo, n, at int) bool {
				for j := range s.n {
					t.sample[j] = append(t.sample[j], s.chunk[j][at:at+n]...)
				}
				m += n
				return true
			})
		}
		skip = run - end
	}
	for j := range s.n {
		w := max(1, want*m/n)
		t.least[j] = kthLargest(t.sample[j], w, w/16)
	}
}

// prefetchRun asks for the codes of a run of keys, if there are that many.
func (t *TwoStage) prefetchRun(c *Codes, run int) {
	if active != nil && (run+1)*runKeys <= c.n {
		t.run[0] = uint32(run)
		active.prefetch(&c.mem[0], &t.run[0], 1, runKeys/blockKeys*c.coder.blockBytes())
	}
}

// scan collects candidates over all parts; their ids are places, counted over
// the parts. A list that runs full keeps its best and goes on with a higher
// threshold.
func (t *TwoStage) scan(parts []CodedKeys, want int, rest []Partial, scale float32) {
	s := &t.queries
	place := uint32(0)
	for _, p := range parts {
		for lo := p.Lo; ; {
			lo = p.Codes.Scan(s, lo, p.Hi, place, t.least[:s.n], t.found[:s.n], rest, scale)
			if lo == p.Hi {
				break
			}
			for j := range s.n {
				if f := &t.found[j]; cap(f.IDs)-len(f.IDs) < blockKeys {
					var r *Partial
					if rest != nil {
						r = &rest[j]
					}
					t.keepBest(j, want, parts, r, scale)
				}
			}
		}
		place += uint32(p.Hi)
	}
}

// keepBest drops all but the want best candidates of query j, of equal ones
// the later, and raises the threshold above what was dropped.
func (t *TwoStage) keepBest(j, want int, parts []CodedKeys, rest *Partial, scale float32) {
	f := &t.found[j]
	least := kthLargest(f.Bounds, want, 0)
	above := math.Nextafter32(least, float32(math.Inf(1)))
	ties := want - countAtLeast(f.Bounds, above)
	kept, dropped := 0, t.scores[:0]
	for i, e := range f.Bounds {
		if e == least {
			ties--
		}
		if e < least || e == least && ties < 0 {
			if rest != nil {
				dropped = append(dropped, e-t.queries.list[j].margin*scaleOf(parts, f.IDs[i]))
			}
			continue
		}
		f.IDs[kept], f.Bounds[kept] = f.IDs[i], e
		kept++
	}
	f.IDs, f.Bounds = f.IDs[:kept], f.Bounds[:kept]
	t.least[j] = above
	if rest != nil {
		rest.addEstimates(&t.queries, j, dropped, scale)
	}
	t.scores = dropped
}

// scaleOf returns the scale of the key at a place.
func scaleOf(parts []CodedKeys, place uint32) float32 {
	for int(place) >= parts[0].Hi {
		place -= uint32(parts[0].Hi)
		parts = parts[1:]
	}
	return parts[0].Codes.scale(int(place))
}

// choose scores the candidates at the given places, in increasing order, with
// the stored keys and leaves the k best in top, by id. The others add to rest.
func (t *TwoStage) choose(q []float32, parts []CodedKeys, places []uint32, k int, top *TopK, rest *Partial, scale float32) {
	if cap(t.scores) < len(places) {
		t.scores = make([]float32, len(places))
	}
	scores := t.scores[:len(places)]
	qs, out := [1][]float32{q}, [1][]float32{}
	ids, place := places, uint32(0)
	for _, p := range parts {
		m := sort.Search(len(ids), func(i int) bool { return ids[i] >= place+uint32(p.Hi) })
		for i := range ids[:m] {
			ids[i] -= place
		}
		out[0] = scores[len(places)-len(ids):][:m]
		ScoreList(qs[:], p.Keys, ids[:m], out[:], t.row)
		for i := range ids[:m] {
			ids[i] += p.First
		}
		ids, place = ids[m:], place+uint32(p.Hi)
	}
	top.Reset(k)
	ids = places
	least := kthLargest(scores, k, 0)
	if math.IsInf(float64(least), -1) { // no more than k, or not all are numbers
		top.PushList(ids, scores)
		return
	}
	if rest != nil {
		rest.addBelow(scores, least, scale, 0)
	}
	if cap(t.index) < len(scores) {
		t.index = make([]uint32, len(scores))
	}
	m := takeAtLeast(scores, least, t.index[:len(scores)])
	for i, at := range t.index[:m] {
		ids[i] = ids[at]
	}
	top.PushList(ids[:m], scores[:m])
	if extra := m - k; rest != nil && extra > 0 { // as good as the k-th, with higher ids
		rest.raise(scale * least)
		rest.Sum += float32(extra) * exp32(scale*least-rest.Max)
	}
}

// kthLargest returns a threshold that k to k+slack of the numbers in x reach,
// more only where equal ones stand k-th: +Inf for k = 0, -Inf when there are
// fewer than k.
func kthLargest(x []float32, k, slack int) float32 {
	if k == 0 {
		return float32(math.Inf(1))
	}
	lo, hi := float32Order(float32(math.Inf(-1))), float32Order(largest(x))
	if countAtLeast(x, orderedFloat32(lo)) < k {
		return orderedFloat32(lo)
	}
	for lo < hi {
		mid := lo + (hi-lo+1)/2
		switch c := countAtLeast(x, orderedFloat32(mid)); {
		case c < k:
			hi = mid - 1
		case c <= k+slack:
			return orderedFloat32(mid)
		default:
			lo = mid
		}
	}
	return orderedFloat32(lo)
}

// float32Order numbers the floats other than NaN in their order.
func float32Order(v float32) uint32 {
	b := math.Float32bits(v)
	if b>>31 == 1 {
		return ^b
	}
	return b | 1<<31
}

// orderedFloat32 is the inverse of float32Order.
func orderedFloat32(n uint32) float32 {
	if n>>31 == 1 {
		return math.Float32frombits(n &^ (1 << 31))
	}
	return math.Float32frombits(^n)
}

func countAtLeast(x []float32, least float32) (count int) {
	pieces(len(x), func(lo, n int) { count += coding().countAtLeast(&x[lo], n, least) })
	return count
}

// takeAtLeast moves the elements of x that are not below least to its front,
// their indices to index, and returns their number.
func takeAtLeast(x []float32, least float32, index []uint32) (count int) {
	pieces(len(x), func(lo, n int) {
		count += coding().takeAtLeast(&x[lo], n, uint32(lo), least, &index[count], &x[count])
	})
	return count
}
