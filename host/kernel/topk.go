package kernel

import (
	"math"
	"math/bits"
	"slices"
)

// TopK collects the k best (score, id) pairs of one query. Equal scores are
// ordered by id, lower first, so that every implementation returns the same
// set. A NaN score ranks below every number, as -Inf does.
//
// Entries gather unordered until there is no more room; then the k best are
// selected, and the worst of them becomes the bar for those that follow. That
// takes fewer steps an entry than a heap, and none that depend on each other.
type TopK struct {
	k       int
	entries []uint64 // see entryOf; at most room
	bar     uint64   // entries up to it cannot enter; 0 until k were selected
	barred  float32  // score of bar
}

// entryOf packs a pair so that the better one is the larger number: the bits
// of the score made monotone, above the complement of the id.
func entryOf(score float32, id uint32) uint64 {
	switch {
	case score != score:
		score = float32(math.Inf(-1))
	case score == 0:
		score = 0 // -0 equals 0
	}
	b := math.Float32bits(score)
	b ^= uint32(int32(b)>>31) | 1<<31
	return uint64(b)<<32 | uint64(^id)
}

// pairOf unpacks an entry.
func pairOf(e uint64) (score float32, id uint32) {
	b := uint32(e >> 32)
	b ^= uint32(int32(^b)>>31) | 1<<31
	return math.Float32frombits(b), ^uint32(e)
}

// room is how many entries gather before the k best of them are selected.
func (t *TopK) room() int { return t.k + max(3*t.k, 256) }

// NewTopK returns a collector for k >= 0 entries.
func NewTopK(k int) *TopK {
	t := &TopK{}
	t.Reset(k)
	return t
}

// Reset empties the collector and sets its size.
func (t *TopK) Reset(k int) { t.k, t.bar, t.entries = k, 0, t.entries[:0] }

// Len returns the number of entries kept.
func (t *TopK) Len() int { return min(len(t.entries), t.k) }

// Push offers ids first, first+1, ... with the given scores.
func (t *TopK) Push(first uint32, scores []float32) {
	for i := 0; i < len(scores); i++ {
		if i = t.skip(scores, i); i < len(scores) {
			t.push(scores[i], first+uint32(i))
		}
	}
}

// PushList offers ids[i] with scores[i].
func (t *TopK) PushList(ids []uint32, scores []float32) {
	for i := 0; i < len(scores); i++ {
		if i = t.skip(scores, i); i < len(scores) {
			t.push(scores[i], ids[i])
		}
	}
}

// skip returns the first index from i on whose score may enter: most do not,
// and a vector compare passes over them at once. An equal score may, by its
// id.
func (t *TopK) skip(scores []float32, i int) int {
	if active == nil || t.bar == 0 {
		return i
	}
	least := t.barred
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

// least returns a score below which nothing enters.
func (t *TopK) least() float32 {
	switch {
	case t.k == 0:
		return float32(math.Inf(1))
	case t.bar == 0:
		return float32(math.Inf(-1))
	}
	return t.barred
}

// toExceed returns the score that a new entry must exceed, given that its id
// is above all that were offered; NaN, which nothing is less than or equal to,
// while any score may enter.
func (t *TopK) toExceed() float32 {
	if t.k > 0 && t.bar == 0 {
		return float32(math.NaN())
	}
	return t.least()
}

func (t *TopK) push(score float32, id uint32) {
	e := entryOf(score, id)
	if e <= t.bar || t.k == 0 {
		return
	}
	if t.entries = append(t.entries, e); len(t.entries) >= t.room() {
		t.shrink()
	}
}

// shrink keeps the k best entries and raises the bar to the worst of them.
func (t *TopK) shrink() {
	selectLargest(t.entries, t.k)
	t.entries = t.entries[:t.k]
	t.bar = slices.Min(t.entries)
	t.barred, _ = pairOf(t.bar)
}

// Take writes the kept entries best first to ids and scores (each at least
// Len long), empties the collector and returns the count.
func (t *TopK) Take(ids []uint32, scores []float32) int {
	if len(t.entries) > t.k {
		t.shrink()
	}
	slices.Sort(t.entries)
	n := len(t.entries)
	for i, e := range t.entries {
		scores[n-1-i], ids[n-1-i] = pairOf(e)
	}
	t.Reset(t.k)
	return n
}

// selectLargest moves the k largest elements of x to its front, 0 < k <=
// len(x), by Hoare's selection with pivots from the middle.
func selectLargest(x []uint64, k int) {
	for len(x) > k {
		// The median of three elements goes to the end.
		a, b, c := len(x)/4, len(x)/2, len(x)-1
		if x[a] > x[b] {
			a, b = b, a
		}
		if x[b] > x[c] {
			b = c
			if x[a] > x[b] {
				b = a
			}
		}
		x[b], x[c] = x[c], x[b]
		pivot, above := x[c], 0
		for i, v := range x[:c] {
			x[i], x[above] = x[above], v
			// Without a branch: which side v is on cannot be foreseen.
			_, larger := bits.Sub64(pivot, v, 0)
			above += int(larger)
		}
		x[c], x[above] = x[above], pivot
		switch {
		case above >= k:
			x = x[:above]
		default:
			x, k = x[above+1:], k-above-1
			if k == 0 {
				return
			}
		}
	}
}
