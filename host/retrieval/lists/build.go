package lists

import (
	"cmp"
	"context"
	"fmt"
	"math"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval/internal/cow"
	"github.com/retrievalattention/ra/host/retrieval/internal/par"
	"github.com/retrievalattention/ra/host/sched"
)

// BuildParams set how lists are built. A zero field means its default.
type BuildParams struct {
	PerList    int  // tokens a list, on average: 64
	Segment    int  // tokens that are clustered together: 8192
	Iterations int  // of k-means: 10
	Summaries  bool // keep the mean key and value of every list
	// Progress, when not nil, is told how much of a stage is done. Calls come
	// one at a time.
	Progress func(stage string, done, total int)
}

func (p BuildParams) withDefaults() BuildParams {
	p.PerList = cmp.Or(p.PerList, 64)
	p.Segment = cmp.Or(p.Segment, 8192)
	p.Iterations = cmp.Or(p.Iterations, 10)
	return p
}

// Validate reports values that cannot be.
func (p BuildParams) Validate() error {
	p = p.withDefaults()
	switch {
	case p.PerList < 1:
		return fmt.Errorf("tokens per list are %d, must be positive", p.PerList)
	case p.Segment < p.PerList:
		return fmt.Errorf("a segment is %d tokens, must be at least a list's, %d", p.Segment, p.PerList)
	case p.Iterations < 1:
		return fmt.Errorf("iterations are %d, must be at least 1", p.Iterations)
	}
	return nil
}

// Build makes the lists of one KV head over the positions of tokens by
// spherical k-means, segment by segment as RetroInfer does (arXiv
// 2505.02922): the mean key is taken off, the centroids of a segment begin at
// evenly spaced keys and have unit norm; a last pass gives every token to the
// nearest centroid of all segments, and then a list's centroid is the plain
// mean of its keys. The result is the same on any number of cores.
func Build(ctx context.Context, ix compute.Indexer, head compute.Head, mem cow.Memory, tokens []kv.Range, p BuildParams) (*Lists, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	b := &builder{p: p.withDefaults(), ix: ix, head: head, dim: head.Dim()}
	for _, r := range tokens {
		var err error
		if b.ranges, err = follow(b.ranges, r); err != nil {
			return nil, err
		}
		for pos := r.Lo; pos < r.Hi; pos++ {
			b.tokens = append(b.tokens, uint32(pos))
		}
	}
	l, err := b.build(ctx, mem)
	if err != nil {
		return nil, fmt.Errorf("build the lists of layer %d, KV head %d: %w", head.Layer, head.KVHead, err)
	}
	return l, nil
}

type builder struct {
	p       BuildParams
	ix      compute.Indexer
	head    compute.Head
	dim     int
	ranges  []kv.Range
	tokens  []uint32
	mean    []float32
	unit    []float32 // [list][dim]: centroids of unit norm, the mean key taken off
	nearest []uint32  // [token]: its list
}

func (b *builder) build(ctx context.Context, mem cow.Memory) (*Lists, error) {
	n := len(b.tokens)
	b.nearest = make([]uint32, n)
	b.mean = make([]float32, b.dim)
	if err := b.means(ctx, make([]uint32, n), 1, b.mean, nil); err != nil {
		return nil, err
	}
	segments := max((n+b.p.Segment/2)/b.p.Segment, min(n, 1))
	for i := range segments {
		hi := (i + 1) * n / segments
		if err := b.cluster(ctx, i*n/segments, hi); err != nil {
			return nil, err
		}
		b.report("cluster", hi, n)
	}
	lists := len(b.unit) / b.dim
	if err := b.assign(ctx, 0, n, b.unit); err != nil {
		return nil, err
	}
	b.report("assign", n, n)
	return b.pack(ctx, mem, lists)
}

func (b *builder) report(stage string, done, total int) {
	if b.p.Progress != nil {
		b.p.Progress(stage, done, total)
	}
}

// cluster adds the centroids of tokens [lo, hi).
func (b *builder) cluster(ctx context.Context, lo, hi int) error {
	n := hi - lo
	k := (n + b.p.PerList - 1) / b.p.PerList
	first := len(b.unit) / b.dim
	b.unit = append(b.unit, make([]float32, k*b.dim)...)
	unit := b.unit[first*b.dim:]
	reader := b.ix.Reader(b.head)
	for i := range k {
		reader.Key(b.tokens[lo+i*n/k], unit[i*b.dim:(i+1)*b.dim])
	}
	b.centre(unit)
	for range b.p.Iterations - 1 {
		if err := b.assign(ctx, lo, hi, unit); err != nil {
			return err
		}
		// A list that lost all its tokens keeps its centroid.
		old := append([]float32(nil), unit...)
		sub := builder{ix: b.ix, head: b.head, dim: b.dim, tokens: b.tokens[lo:hi]}
		counts := make([]uint32, k)
		if err := sub.means(ctx, b.nearest[lo:hi], k, unit, counts); err != nil {
			return err
		}
		b.centre(unit)
		for i, c := range counts {
			if c == 0 {
				copy(unit[i*b.dim:(i+1)*b.dim], old[i*b.dim:])
			}
		}
	}
	return nil
}

// centre takes the mean key off rows and scales them to unit norm.
func (b *builder) centre(rows []float32) {
	for i := 0; i < len(rows); i += b.dim {
		row := rows[i : i+b.dim]
		for j := range row {
			row[j] -= b.mean[j]
		}
		if ss := kernel.Dot(row, row); ss > 0 {
			f := float32(1 / math.Sqrt(float64(ss)))
			for j := range row {
				row[j] *= f
			}
		}
	}
}

// assignRows is how many tokens are compared with all centroids at a time.
const assignRows = 64

// assign sets nearest of tokens [lo, hi) to the row of centroids with the
// largest inner product once the mean key is taken off.
func (b *builder) assign(ctx context.Context, lo, hi int, centroids []float32) error {
	k := len(centroids) / b.dim
	offset := make([]float32, k) // (key-mean).c = key.c - mean.c
	for i := range offset {
		offset[i] = -kernel.Dot(b.mean, centroids[i*b.dim:(i+1)*b.dim])
	}
	m := kernel.RowsF32(centroids, b.dim)
	return sched.Run(ctx, (hi-lo+assignRows-1)/assignRows, assignRows*k, func(i int, dots []float32) {
		from := lo + i*assignRows
		to := min(from+assignRows, hi)
		for from < to {
			// Tokens may have gaps between them.
			n := 1
			for from+n < to && b.tokens[from+n] == b.tokens[from]+uint32(n) {
				n++
			}
			pos := int(b.tokens[from])
			if b.ix.Project(ctx, b.head, kv.Range{Lo: pos, Hi: pos + n}, m, dots) != nil {
				return // ctx ended, which Run reports
			}
			for j := range n {
				row := dots[j*k : (j+1)*k]
				kernel.AddTo(offset, row)
				b.nearest[from+j] = uint32(kernel.ArgMax(row))
			}
			from += n
		}
	})
}

// means writes the mean keys of k lists to out [k][dim] and, where counts is
// not nil, how many tokens each has. list says which list a token is in.
func (b *builder) means(ctx context.Context, list []uint32, k int, out []float32, counts []uint32) error {
	start, order := group(list, k)
	for i := range counts {
		counts[i] = start[i+1] - start[i]
	}
	return b.eachList(ctx, start, order, func(r compute.Reader, i int, tokens []uint32, row []float32) {
		mean(tokens, r.Key, row, out[i*b.dim:(i+1)*b.dim])
	})
}

// mean writes the mean of rows read by read.
func mean(tokens []uint32, read func(uint32, []float32), row, out []float32) {
	// In f64: a list may be the whole context.
	sum := make([]float64, len(out))
	for _, t := range tokens {
		read(t, row)
		for j, x := range row {
			sum[j] += float64(x)
		}
	}
	for j := range out {
		out[j] = float32(sum[j] / float64(max(len(tokens), 1)))
	}
}

// eachList calls f in parallel for each list with its tokens and a scratch
// row.
func (b *builder) eachList(ctx context.Context, start, order []uint32, f func(r compute.Reader, list int, tokens []uint32, row []float32)) error {
	type scratch struct {
		reader compute.Reader
		tokens []uint32
		row    []float32
	}
	scratches := par.New(func() *scratch {
		return &scratch{reader: b.ix.Reader(b.head), row: make([]float32, b.dim)}
	})
	return scratches.Do(ctx, len(start)-1, func(s *scratch, i int) {
		s.tokens = s.tokens[:0]
		for _, at := range order[start[i]:start[i+1]] {
			s.tokens = append(s.tokens, b.tokens[at])
		}
		f(s.reader, i, s.tokens, s.row)
	})
}

// group returns the indexes of list by value: those of value v are
// order[start[v]:start[v+1]], ascending.
func group(list []uint32, k int) (start, order []uint32) {
	start = make([]uint32, k+2)
	for _, v := range list {
		start[v+2]++
	}
	for v := range k {
		start[v+2] += start[v+1]
	}
	order = make([]uint32, len(list))
	for i, v := range list {
		order[start[v+1]] = uint32(i)
		start[v+1]++
	}
	return start[:k+1], order
}

// pack makes the lists; those without a token are left out.
func (b *builder) pack(ctx context.Context, mem cow.Memory, k int) (*Lists, error) {
	start, order := group(b.nearest, k)
	offsets := []uint32{0}
	for i := range k {
		if start[i+1] > start[i] {
			offsets = append(offsets, start[i+1])
		}
	}
	l, err := newLists(mem, b.dim, len(offsets)-1, b.ranges, b.p.Summaries)
	if err != nil {
		return nil, err
	}
	l.mean, l.offsets = b.mean, offsets
	for i, at := range order {
		l.members.Base()[i] = b.tokens[at]
	}
	err = b.eachList(ctx, offsets, order, func(r compute.Reader, i int, tokens []uint32, row []float32) {
		c := l.centroids.Base()[i*b.dim : (i+1)*b.dim]
		mean(tokens, r.Key, row, c)
		if l.summaries != nil {
			s := l.summaries.Base()[2*i*b.dim : 2*(i+1)*b.dim]
			copy(s, c)
			mean(tokens, r.Value, row, s[b.dim:])
		}
	})
	if err != nil {
		l.Close()
		return nil, err
	}
	l.prepare()
	return l, nil
}

// newLists takes the memory for lists of tokens.
func newLists(mem cow.Memory, dim, lists int, tokens []kv.Range, summaries bool) (l *Lists, err error) {
	l = &Lists{dim: dim, tokens: tokens, offsets: []uint32{0}}
	for _, r := range tokens {
		l.len += r.Len()
	}
	var open []func() error
	fail := func(err error) (*Lists, error) {
		for _, c := range open {
			c()
		}
		return nil, fmt.Errorf("memory for lists: %w", err)
	}
	if l.centroids, err = cow.New[float32](mem, dim, lists); err != nil {
		return fail(err)
	}
	open = append(open, l.centroids.Close)
	if l.members, err = cow.New[uint32](mem, 1, l.len); err != nil {
		return fail(err)
	}
	open = append(open, l.members.Close)
	if l.added, err = cow.New[uint32](mem, 2, 0); err != nil {
		return fail(err)
	}
	open = append(open, l.added.Close)
	if summaries {
		if l.summaries, err = cow.New[float32](mem, 2*dim, lists); err != nil {
			return fail(err)
		}
	}
	return l, nil
}
