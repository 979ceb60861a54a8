package lists

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval/internal/cow"
)

// ErrToken marks a token that cannot be added.
var ErrToken = errors.New("token cannot be added to the lists")

// Lists are the indexed tokens of one KV head, each in the list of the
// centroid nearest to its key. A token's id is its position. It is a
// [kv.Attachment]: searches may run beside each other and beside Fork, Append
// and Close exclude all else.
type Lists struct {
	dim    int
	tokens []kv.Range // in the lists, in order, apart; replaced, never changed
	len    int        // number of tokens

	// Written once, shared by all forks.
	mean      []float32           // of the keys that the lists were built of
	centroids *cow.Table[float32] // [list][dim]: the mean key of each list
	assign    []float32           // [list]: what turns inner products into nearness, see nearness
	offsets   []uint32            // [list+1] into members
	members   *cow.Table[uint32]  // positions, list by list, ascending

	// What was appended since. tails[l] is 1 + the index of the newest token
	// added to list l, whose row links to the one before it in the same way.
	tails []uint32
	added *cow.Table[uint32] // [token]{position, link}
	count []uint32           // [list]: tokens added; nil for none

	summaries *cow.Table[float32] // [list]{mean key, mean value}; nil unless asked for
}

// Len returns the number of tokens in the lists.
func (l *Lists) Len() int { return l.len }

// Lists returns the number of lists.
func (l *Lists) Lists() int { return l.centroids.Len() }

// Bytes returns the memory that the lists reach.
func (l *Lists) Bytes() int64 {
	n := l.centroids.Bytes() + l.members.Bytes() + l.added.Bytes()
	if l.summaries != nil {
		n += l.summaries.Bytes()
	}
	return n
}

// Centroids returns the mean keys of the lists as they were built. Borrowed.
func (l *Lists) Centroids() kernel.Rows { return kernel.RowsF32(l.centroids.Base(), l.dim) }

// Count returns the number of tokens in a list.
func (l *Lists) Count(list int) int {
	n := int(l.offsets[list+1] - l.offsets[list])
	if l.count != nil {
		n += int(l.count[list])
	}
	return n
}

// Members appends the tokens of a list to ids, those that it was built of
// first, in order.
func (l *Lists) Members(list int, ids []uint32) []uint32 {
	ids = append(ids, l.members.Base()[l.offsets[list]:l.offsets[list+1]]...)
	if l.tails != nil {
		for at := l.tails[list]; at != 0; {
			row := l.added.Row(int(at) - 1)
			ids, at = append(ids, row[0]), row[1]
		}
	}
	return ids
}

// Summaries reports whether the lists have summaries.
func (l *Lists) Summaries() bool { return l.summaries != nil }

// Summary returns the mean key and the mean value of a list's tokens, or nil
// where the lists were built without summaries. Borrowed until the next
// Append.
func (l *Lists) Summary(list int) (key, value []float32) {
	if l.summaries == nil {
		return nil, nil
	}
	row := l.summaries.Row(list)
	return row[:l.dim], row[l.dim:]
}

// nearness turns the inner products of one key with all centroids into how
// near they are: the cosine between key and centroid once the mean key is
// taken off both, up to a factor that is the same for all.
//
//	(k-m).(c-m) / |c-m| = (k.c - k.m - (c.m - m.m)) / |c-m|
//
// assign holds, for each list, c.m - m.m and 1/|c-m|, and k.m is dots' last
// element.
func (l *Lists) nearness(dots []float32) []float32 {
	n := l.Lists()
	km := dots[n]
	for i, a := range l.assign[:n] {
		dots[i] = (dots[i] - km - a) * l.assign[n+i]
	}
	return dots[:n]
}

// prepare fills assign from the centroids and the mean.
func (l *Lists) prepare() {
	n := l.Lists()
	l.assign = make([]float32, 2*n)
	mm := kernel.Dot(l.mean, l.mean)
	diff := make([]float32, l.dim)
	for i := range n {
		c := l.centroids.Row(i)
		for j := range diff {
			diff[j] = c[j] - l.mean[j]
		}
		l.assign[i] = kernel.Dot(c, l.mean) - mm
		if norm := kernel.Dot(diff, diff); norm > 0 {
			l.assign[n+i] = float32(1 / math.Sqrt(float64(norm)))
		}
	}
}

// Append adds the tokens of r, which follow all that are in the lists, each
// to the list of its nearest centroid. Reads the keys (and values, where
// there are summaries) by reader.
func (l *Lists) Append(r kv.Range, reader compute.Reader) error {
	if l.Lists() == 0 {
		return fmt.Errorf("%w: there are no lists", ErrToken)
	}
	if _, err := follow(l.tokens, r); err != nil {
		return err
	}
	if l.tails == nil {
		l.tails, l.count = make([]uint32, l.Lists()), make([]uint32, l.Lists())
	}
	key, value := make([]float32, l.dim), make([]float32, l.dim)
	dots := make([]float32, l.Lists()+1)
	queries, scores := [][]float32{key}, [][]float32{dots}
	for pos := r.Lo; pos < r.Hi; pos++ {
		reader.Key(uint32(pos), key)
		kernel.ScoreRange(queries, l.Centroids(), 0, l.Lists(), scores, nil)
		dots[l.Lists()] = kernel.Dot(key, l.mean)
		list := kernel.ArgMax(l.nearness(dots))
		if err := l.add(uint32(pos), list); err != nil {
			return err
		}
		if l.summaries == nil {
			continue
		}
		reader.Value(uint32(pos), value)
		row, err := l.summaries.Write(list)
		if err != nil {
			return err
		}
		w := 1 / float32(l.Count(list))
		for j := range l.dim {
			row[j] += (key[j] - row[j]) * w
			row[l.dim+j] += (value[j] - row[l.dim+j]) * w
		}
	}
	return nil
}

// add puts a token at the end of a list.
func (l *Lists) add(pos uint32, list int) error {
	if err := l.added.Grow(1); err != nil {
		return fmt.Errorf("memory for list members: %w", err)
	}
	row, err := l.added.Write(l.added.Len() - 1)
	if err != nil {
		return err
	}
	row[0], row[1] = pos, l.tails[list]
	l.tails[list] = uint32(l.added.Len())
	l.count[list]++
	l.len++
	l.tokens, err = follow(l.tokens, kv.Range{Lo: int(pos), Hi: int(pos) + 1})
	return err
}

// follow returns ranges with r at their end.
func follow(ranges []kv.Range, r kv.Range) ([]kv.Range, error) {
	end := 0
	if n := len(ranges); n > 0 {
		end = ranges[n-1].Hi
	}
	switch {
	case r.Lo < end || r.Hi < r.Lo || r.Hi >= math.MaxInt32:
		return nil, fmt.Errorf("%w: [%d, %d) after tokens up to %d", ErrToken, r.Lo, r.Hi, end)
	case r.Len() == 0:
		return ranges, nil
	case len(ranges) > 0 && end == r.Lo:
		last := len(ranges) - 1
		return append(ranges[:last:last], kv.Range{Lo: ranges[last].Lo, Hi: r.Hi}), nil
	}
	return append(ranges[:len(ranges):len(ranges)], r), nil
}

// Fork returns lists with the same tokens; see [kv.Attachment].
func (l *Lists) Fork() kv.Attachment { return l.fork() }

func (l *Lists) fork() *Lists {
	f := *l
	f.centroids, f.members, f.added = l.centroids.Fork(), l.members.Fork(), l.added.Fork()
	f.tails, f.count = slices.Clone(l.tails), slices.Clone(l.count)
	if l.summaries != nil {
		f.summaries = l.summaries.Fork()
	}
	return &f
}

// Close releases the lists' hold on their memory.
func (l *Lists) Close() error {
	errs := []error{l.centroids.Close(), l.members.Close(), l.added.Close()}
	if l.summaries != nil {
		errs = append(errs, l.summaries.Close())
	}
	return errors.Join(errs...)
}
