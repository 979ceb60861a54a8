package lists

import (
	"errors"
	"io"
	"slices"

	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval/internal/cow"
	"github.com/retrievalattention/ra/host/retrieval/internal/wire"
)

// ErrFormat marks stored data that Load refuses.
var ErrFormat = wire.ErrFormat

// The stored form, see [wire]: head dimension; number of lists; 1 with
// summaries, else 0; number of ranges of tokens, their bounds; the mean key;
// the centroids; the lists' lengths; their tokens, ascending in each list; the
// summaries.
const (
	kind    = "LIST"
	version = 1
)

const (
	maxDim    = 1 << 14 // head dimension that Load accepts
	maxRanges = 1 << 16 // ranges of tokens that Load accepts
)

// Save writes the lists, with what was appended since they were built.
func (l *Lists) Save(w io.Writer) error {
	x := wire.NewWriter(w, kind, version)
	x.U32(uint32(l.dim))
	x.U32(uint32(l.Lists()))
	if l.summaries != nil {
		x.U32(1)
	} else {
		x.U32(0)
	}
	x.U32(uint32(len(l.tokens)))
	for _, r := range l.tokens {
		x.U32(uint32(r.Lo))
		x.U32(uint32(r.Hi))
	}
	x.F32s(l.mean)
	x.F32s(l.centroids.Base())
	for i := range l.Lists() {
		x.U32(uint32(l.Count(i)))
	}
	var ids []uint32
	for i := range l.Lists() {
		ids = l.Members(i, ids[:0])
		slices.Sort(ids)
		x.U32s(ids)
	}
	if l.summaries != nil {
		for i := range l.Lists() {
			x.F32s(l.summaries.Row(i))
		}
	}
	return x.Close()
}

// Load reads lists that Save wrote, of keys of dimension dim; their tokens
// must be positions below tokens. Data that is damaged, or that is no such
// lists, is refused with an error wrapping [ErrFormat].
func Load(mem cow.Memory, dim, tokens int, r io.Reader) (*Lists, error) {
	x, err := wire.NewReader(r, kind, version)
	if err != nil {
		return nil, err
	}
	if d := x.Int("head dimension", 1, maxDim); d != dim {
		x.Fail("keys of dimension %d, want %d", d, dim)
	}
	lists := x.Int("number of lists", 0, tokens)
	summaries := x.Int("summaries", 0, 1) == 1
	var ranges []kv.Range
	n, end := 0, 0
	for range x.Int("number of ranges", 0, maxRanges) {
		s := kv.Range{Lo: x.Int("start of a range", end, tokens)}
		s.Hi = x.Int("end of a range", s.Lo, tokens)
		if x.Err() != nil {
			return nil, x.Err()
		}
		ranges = append(ranges, s)
		n, end = n+s.Len(), s.Hi
	}
	if lists > n || lists == 0 && n > 0 {
		x.Fail("%d lists of %d tokens", lists, n)
	}
	if x.Err() != nil {
		return nil, x.Err()
	}
	l, err := newLists(mem, dim, lists, ranges, summaries)
	if err != nil {
		return nil, err
	}
	l.mean = make([]float32, dim)
	x.F32s(l.mean)
	x.F32s(l.centroids.Base())
	counts := x.List(lists)
	sum := 0
	for _, c := range counts {
		sum += int(c)
		l.offsets = append(l.offsets, uint32(sum))
	}
	if sum != n {
		x.Fail("lists of %d tokens in all, of %d", sum, n)
	}
	x.U32s(l.members.Base())
	if x.Err() == nil {
		l.check(x)
	}
	if summaries {
		x.F32s(l.summaries.Base())
	}
	if err := x.Close(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.prepare()
	return l, nil
}

// check refuses lists that do not have each token once.
func (l *Lists) check(x *wire.Reader) {
	seen := make([]bool, l.len)
	for _, id := range l.members.Base() {
		at, ok := l.index(id)
		if !ok || seen[at] {
			x.Fail("token %d is in the lists twice, or should not be", id)
			return
		}
		seen[at] = true
	}
}

// index returns how many of the lists' tokens come before id.
func (l *Lists) index(id uint32) (int, bool) {
	n := 0
	for _, r := range l.tokens {
		if int(id) < r.Hi {
			return n + int(id) - r.Lo, int(id) >= r.Lo
		}
		n += r.Len()
	}
	return 0, false
}
