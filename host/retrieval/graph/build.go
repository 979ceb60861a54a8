package graph

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval/internal/cow"
	"github.com/retrievalattention/ra/host/retrieval/internal/par"
)

// BuildParams set how a graph is built. A zero field means its default.
type BuildParams struct {
	Degree     int // links a node: 32
	Neighbours int // keys that are found exactly for each query: 64
	Candidates int // keys that are considered for a node's links: 256
	Entries    int // nodes where every search begins: 128
	Beam       int // of the searches that place what no query found: 64
	// Progress, when not nil, is told how much of a stage is done. Calls come
	// one at a time.
	Progress func(stage string, done, total int)
}

func (p BuildParams) withDefaults() BuildParams {
	p.Degree = cmp.Or(p.Degree, 32)
	p.Neighbours = cmp.Or(p.Neighbours, 64)
	p.Candidates = cmp.Or(p.Candidates, 256)
	p.Entries = cmp.Or(p.Entries, 128)
	p.Beam = cmp.Or(p.Beam, 64)
	return p
}

// Validate reports values that cannot be.
func (p BuildParams) Validate() error {
	p = p.withDefaults()
	switch {
	case p.Degree < 4 || p.Degree > MaxDegree:
		return fmt.Errorf("graph degree is %d, must be 4 to %d", p.Degree, MaxDegree)
	case p.Neighbours < 2:
		return fmt.Errorf("neighbours per query are %d, must be at least 2", p.Neighbours)
	case p.Candidates < p.Degree:
		return fmt.Errorf("candidates are %d, must be at least the degree, %d", p.Candidates, p.Degree)
	case p.Entries < 1:
		return fmt.Errorf("entries are %d, must be at least 1", p.Entries)
	case p.Beam < p.Degree:
		return fmt.Errorf("build beam is %d, must be at least the degree, %d", p.Beam, p.Degree)
	}
	return nil
}

// Build makes the graph of one KV head over the positions of nodes from the
// prefill's queries for it, those of all its query heads together (rows of
// head dimension; there may be none). It is the same graph on any number of
// cores. Steps, after RoarGraph (arXiv 2408.08933), with its defects mended:
//
//  1. The keys with the largest inner products are found exactly for each
//     query.
//  2. Keys that are found together are candidates for each other's links:
//     all queries that found a key count, for each of the keys found. The
//     candidates found together most often, weighed against how often they
//     are found at all, are pruned so that links point in different
//     directions: one is dropped when a nearer one is kept that it is nearer
//     to than to the node (by cosine).
//  3. Links are made to go both ways, and pruned again.
//  4. A key that no query found is placed by a search for itself, and linked
//     with what that finds.
//  5. A walk from the entries proves that every node is reached; what is not
//     is linked from a node that is.
//
// Searches enter at keys that between them are among the neighbours of as
// many queries as possible, and at those of the highest norms.
//
// While it runs it holds 8 bytes of Go memory for each of the queries'
// neighbours.
func Build(ctx context.Context, ix compute.Indexer, head compute.Head, mem cow.Memory, nodes []kv.Range, queries kernel.Rows, p BuildParams) (*Graph, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	p = p.withDefaults()
	g, err := New(mem, nodes, p.Degree)
	if err != nil {
		return nil, err
	}
	b := &builder{p: p, Graph: g, ix: ix, head: head}
	if err := b.build(ctx, queries); err != nil {
		g.Close()
		return nil, fmt.Errorf("build the graph of layer %d, KV head %d: %w", head.Layer, head.KVHead, err)
	}
	return g, nil
}

type builder struct {
	*Graph
	p     BuildParams
	ix    compute.Indexer
	head  compute.Head
	n     int       // rows of the graph; a row that is no node stays out of all
	norms []float32 // of the rows' keys
	found found
	mu    sync.Mutex // for Progress
}

// found is what the queries found, as rows of the graph.
type found struct {
	k       int
	rows    []uint32 // [query][k]
	start   []uint32 // [row+1] into queries
	queries []uint32 // that found a row, row by row
}

// of returns the queries that found a row.
func (f *found) of(row uint32) []uint32 { return f.queries[f.start[row]:f.start[row+1]] }

// by returns the rows that a query found, best first.
func (f *found) by(query uint32) []uint32 {
	return f.rows[int(query)*f.k : (int(query)+1)*f.k]
}

func (b *builder) build(ctx context.Context, queries kernel.Rows) error {
	b.n = b.rows.Len()
	if b.n == 0 {
		return nil
	}
	b.norms = make([]float32, b.n)
	for _, r := range b.spans {
		if err := b.ix.Norms(ctx, b.head, r, b.norms[r.Lo-b.first():]); err != nil {
			return err
		}
	}
	if err := b.find(ctx, queries); err != nil {
		return err
	}
	b.enter()
	if err := b.project(ctx); err != nil {
		return err
	}
	if err := b.reverse(ctx); err != nil {
		return err
	}
	if err := b.placeRest(ctx); err != nil {
		return err
	}
	return b.connect(ctx)
}

// norm returns the norm of a node's key.
func (b *builder) norm(id uint32) float32 { return b.norms[id-uint32(b.first())] }

// report tells of progress.
func (b *builder) report(stage string, done, total int) {
	if b.p.Progress != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.p.Progress(stage, done, total)
	}
}

// find fills b.found.
func (b *builder) find(ctx context.Context, queries kernel.Rows) error {
	f := &b.found
	f.k = min(b.p.Neighbours, b.Len())
	f.rows = make([]uint32, queries.N*f.k)
	var done int
	progress := func(n int) {
		if b.p.Progress != nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			done += n
			b.p.Progress("neighbours", done, queries.N)
		}
	}
	if _, err := b.ix.KNN(ctx, b.head, queries, b.spans, f.k, f.rows, nil, progress); err != nil {
		return err
	}
	for i := range f.rows {
		f.rows[i] -= uint32(b.first())
	}
	f.start, f.queries = invert(f.rows, b.n)
	for i := range f.queries {
		f.queries[i] /= uint32(f.k)
	}
	return nil
}

// invert returns where each value below n stands in values: the indexes of
// value v are where[start[v]:start[v+1]], ascending.
func invert(values []uint32, n int) (start, where []uint32) {
	start = make([]uint32, n+2)
	for _, v := range values {
		if v != none {
			start[v+2]++
		}
	}
	for v := range n {
		start[v+2] += start[v+1]
	}
	where = make([]uint32, start[n+1])
	for i, v := range values {
		if v != none {
			where[start[v+1]] = uint32(i)
			start[v+1]++
		}
	}
	return start[:n+1], where
}

// entryGain is what one more entry among a query's neighbours is worth,
// relative to the one before.
const entryGain = .7

// enter chooses the entries: a quarter by norm, the others one by one, each
// the key that adds most to the queries' shares of entries.
func (b *builder) enter() {
	chosen := make([]bool, b.n)
	take := func(row uint32) {
		chosen[row] = true
		b.entries = append(b.entries, row+uint32(b.first()))
	}
	count := min(b.p.Entries, b.Len())
	byNorm := kernel.NewTopK((count + 3) / 4)
	byNorm.Push(0, b.norms) // rows that are no nodes have norm 0
	top := make([]uint32, byNorm.Len())
	byNorm.Take(top, make([]float32, len(top)))
	for _, row := range top {
		if b.Has(row + uint32(b.first())) {
			take(row)
		}
	}
	gain := make([]float32, b.n)
	for row := range gain {
		gain[row] = float32(len(b.found.of(uint32(row))))
	}
	worth := make([]float32, len(b.found.rows)/max(b.found.k, 1)) // of a query's next entry
	for i := range worth {
		worth[i] = 1
	}
	for len(b.entries) < count {
		best := kernel.ArgMax(gain)
		if gain[best] <= 0 {
			break
		}
		gain[best] = 0
		if chosen[best] {
			continue
		}
		take(uint32(best))
		for _, q := range b.found.of(uint32(best)) {
			loss := worth[q] * (1 - entryGain)
			worth[q] -= loss
			for _, row := range b.found.by(q) {
				if gain[row] > 0 {
					gain[row] = max(gain[row]-loss, math.SmallestNonzeroFloat32)
				}
			}
		}
	}
	// Where there are no queries: evenly spaced.
	for i := 0; len(b.entries) < count && i < count; i++ {
		row := uint32(i * b.n / count)
		if id := row + uint32(b.first()); !chosen[row] && b.Has(id) {
			take(row)
		}
	}
}

// mostQueries is how many of the queries that found a key are looked at for
// its candidates: keys of high norm are found by most queries.
const mostQueries = 512

// project links each key that a query found.
func (b *builder) project(ctx context.Context) error {
	type scratch struct {
		together []float32 // queries that found the row too
		rows     []uint32  // of which together is not 0
		weights  []float32
		best     *kernel.TopK
		ids      []uint32
		scores   []float32
		pruner
	}
	scratches := par.New(func() *scratch {
		return &scratch{
			together: make([]float32, b.n), best: kernel.NewTopK(b.p.Candidates),
			ids: make([]uint32, b.p.Candidates), scores: make([]float32, b.p.Candidates),
			pruner: newPruner(b.ix, b.head, b.p.Candidates, b.norm),
		}
	})
	rarity := make([]float32, b.n)
	for row := range rarity {
		rarity[row] = float32(1 / math.Sqrt(float64(len(b.found.of(uint32(row))))))
	}
	isEntry := make([]bool, b.n)
	for _, id := range b.entries {
		isEntry[id-uint32(b.first())] = true
	}
	links := b.rows.Base()
	const block = 256
	return scratches.Do(ctx, (b.n+block-1)/block, func(s *scratch, i int) {
		for row := i * block; row < min((i+1)*block, b.n); row++ {
			queries := b.found.of(uint32(row))
			step := max(1, len(queries)/mostQueries)
			for j := 0; j < len(queries); j += step {
				for _, other := range b.found.by(queries[j]) {
					if s.together[other] == 0 {
						s.rows = append(s.rows, other)
					}
					s.together[other]++
				}
			}
			s.best.Reset(b.p.Candidates)
			for _, other := range s.rows {
				weight := s.together[other] * rarity[other]
				s.together[other] = 0
				// Every search begins at the entries: links to them are lost.
				if int(other) != row && !isEntry[other] {
					s.weights = append(s.weights, weight)
					s.rows[len(s.weights)-1] = other
				}
			}
			s.best.PushList(s.rows[:len(s.weights)], s.weights)
			s.rows, s.weights = s.rows[:0], s.weights[:0]
			n := s.best.Take(s.ids, s.scores)
			for j := range s.ids[:n] {
				s.ids[j] += uint32(b.first())
			}
			fill(links[row*b.degree:(row+1)*b.degree], s.prune(uint32(row+b.first()), s.ids[:n], b.mostLinks()))
			if row%block == 0 {
				b.report("links", row, b.n)
			}
		}
	})
}

// mostLinks is how many links are made from what queries found: the others
// are left for nodes that want to be linked from this one later.
func (b *builder) mostLinks() int { return b.degree - max(b.degree/8, 1) }

// reverse makes links go both ways, as far as pruning leaves them.
func (b *builder) reverse(ctx context.Context) error {
	links := b.rows.Base()
	old := slices.Clone(links)
	for i, id := range old {
		if id != none {
			old[i] = id - uint32(b.first())
		}
	}
	start, from := invert(old, b.n)
	type scratch struct {
		ids []uint32
		pruner
	}
	scratches := par.New(func() *scratch {
		return &scratch{pruner: newPruner(b.ix, b.head, b.p.Candidates, b.norm)}
	})
	return scratches.Do(ctx, b.n, func(s *scratch, row int) {
		back := from[start[row]:start[row+1]]
		if len(back) == 0 {
			return
		}
		id := uint32(row + b.first())
		s.ids = append(s.ids[:0], b.Links(id)...)
		own := len(s.ids)
		for _, at := range back {
			other := at/uint32(b.degree) + uint32(b.first())
			if !slices.Contains(s.ids[:own], other) {
				s.ids = append(s.ids, other)
			}
		}
		kept := s.ids
		if len(kept) > b.mostLinks() {
			kept = s.prune(id, s.ids, b.mostLinks())
		}
		fill(links[row*b.degree:(row+1)*b.degree], kept)
	})
}

// restLinks is how many links go to a node that no query found: it is there
// to be found, not to be in the way of what is found often.
const restLinks = 2

// placeRest links what no query found. It goes in rounds: the searches of one
// run at the same time on what was linked before.
func (b *builder) placeRest(ctx context.Context) error {
	var rest []uint32
	linked := 0
	for _, r := range b.spans {
		for id := uint32(r.Lo); id < uint32(r.Hi); id++ {
			if len(b.Links(id)) > 0 || slices.Contains(b.entries, id) {
				linked++
			} else {
				rest = append(rest, id)
			}
		}
	}
	in := newInserter(b.Graph, b.ix, b.head, b.p.Beam, b.norm)
	in.most = restLinks
	in.join = func(from, to uint32) (bool, error) {
		if len(b.Links(from)) >= b.degree-1 {
			return false, nil
		}
		return true, b.Graph.join(from, to)
	}
	total := len(rest)
	for len(rest) > 0 {
		round := min(len(rest), max(linked/8, 64))
		if err := in.insert(ctx, rest[:round]); err != nil {
			return err
		}
		rest = rest[round:]
		linked += round
		b.report("rest", total-len(rest), total)
	}
	return nil
}

// connect makes every node reachable from the entries.
func (b *builder) connect(ctx context.Context) error {
	w := newWalk(b.Graph)
	for _, id := range b.entries {
		w.from(id)
	}
	spare := uint32(b.first()) // no node before it can take a link
	for _, r := range b.spans {
		for id := uint32(r.Lo); id < uint32(r.Hi); id++ {
			if w.reached(id) {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := b.reach(w, id, &spare); err != nil {
				return err
			}
			w.from(id)
		}
	}
	b.report("connect", b.n, b.n)
	return nil
}

// reach links id from a node that is reached: one that it links to itself,
// where there is room, else the first with room. There always is one: every
// node has a link to spare that only this uses, and each node that was
// reached so took one and brought one.
func (b *builder) reach(w *walk, id uint32, spare *uint32) error {
	for _, near := range b.Links(id) {
		if w.reached(near) && len(b.Links(near)) < b.degree {
			return b.join(near, id)
		}
	}
	for !b.Has(*spare) || len(b.Links(*spare)) == b.degree {
		*spare++
	}
	for at := *spare; int(at) < b.end(); at++ {
		if b.Has(at) && w.reached(at) && len(b.Links(at)) < b.degree {
			return b.join(at, id)
		}
	}
	return fmt.Errorf("graph: no node left to link node %d from", id)
}

// join adds a link to a node with room.
func (g *Graph) join(from, to uint32) error {
	row, err := g.rows.Write(int(from) - g.first())
	if err != nil {
		return err
	}
	row[len(g.Links(from))] = to
	return nil
}
