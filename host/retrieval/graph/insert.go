package graph

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval/internal/par"
)

// InsertParams set how appended tokens are linked.
type InsertParams struct {
	Beam int // of the search for a token's neighbours; 0 means 128
}

// nearby is how many tokens before a new one are looked at for its links:
// keys change slowly along a sequence.
const nearby = 64

// Insert appends the tokens of r, which follow all nodes of the graph, as
// nodes. Each is linked with what a search for its own key finds. No node
// that was reachable stops being so, and the new ones all are. After an error
// some of the tokens may be nodes that no search reaches.
func (g *Graph) Insert(ctx context.Context, ix compute.Indexer, head compute.Head, r kv.Range, p InsertParams) error {
	if g.Len() == 0 {
		return fmt.Errorf("%w: tokens appended to a graph that was built of none", ErrNode)
	}
	if err := g.grow(r); err != nil {
		return err
	}
	if p.Beam == 0 {
		p.Beam = 128
	}
	ids := make([]uint32, 0, r.Len())
	for id := r.Lo; id < r.Hi; id++ {
		ids = append(ids, uint32(id))
	}
	in := newInserter(g, ix, head, p.Beam, nil)
	in.join, in.most, in.surely = g.Link, g.degree, true
	return in.insert(ctx, ids)
}

// inserter links nodes that have no links yet.
type inserter struct {
	g       *Graph
	beam    int
	workers *par.Scratch[*insertWorker]
	join    func(from, to uint32) (bool, error)
	most    int  // links to a node
	surely  bool // each node must have one
}

type insertWorker struct {
	searcher *Searcher
	pruner
	query  []float32
	found  []uint32
	scores []float32
}

// newInserter returns an inserter; norm gives the norms of keys, nil where
// they are not kept.
func newInserter(g *Graph, ix compute.Indexer, head compute.Head, beam int, norm func(id uint32) float32) *inserter {
	return &inserter{g: g, beam: beam, workers: par.New(func() *insertWorker {
		w := &insertWorker{
			searcher: NewSearcher(ix), pruner: newPruner(ix, head, math.MaxInt, norm),
			query: make([]float32, head.Dim()), found: make([]uint32, beam), scores: make([]float32, beam),
		}
		w.searcher.Open(g, head)
		return w
	})}
}

// insert links the nodes ids. Their neighbours are looked for at the same
// time, on the graph as it was; the links are then made in order.
func (in *inserter) insert(ctx context.Context, ids []uint32) error {
	g := in.g
	most := g.degree / 2
	out := make([]uint32, len(ids)*most)
	counts := make([]int, len(ids))
	err := in.workers.Do(ctx, len(ids), func(w *insertWorker, i int) {
		counts[i] = copy(out[i*most:(i+1)*most], w.neighbours(g, ids[i], in.beam, most))
	})
	if err != nil {
		return err
	}
	for i, id := range ids {
		links := out[i*most : i*most+counts[i]]
		if err := g.set(id, links); err != nil {
			return err
		}
		joined := 0
		for _, from := range links {
			ok, err := in.join(from, id)
			if err != nil {
				return err
			}
			if ok {
				joined++
			}
			if joined == in.most {
				break
			}
		}
		if in.surely && joined == 0 {
			if err := g.attach(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// neighbours returns at most n nodes to link node id with.
func (w *insertWorker) neighbours(g *Graph, id uint32, beam, n int) []uint32 {
	w.searcher.reader.Key(id, w.query)
	var seeds [nearby]uint32
	before := seeds[:0]
	for i := uint32(1); i <= nearby && i <= id; i++ {
		before = append(before, id-i)
	}
	m := w.searcher.Search(w.query, SearchParams{Beam: beam}, before, w.found, w.scores)
	found := slices.DeleteFunc(w.found[:m], func(f uint32) bool { return f == id })
	for _, b := range before {
		if g.Has(b) && !slices.Contains(found, b) {
			found = append(found, b)
		}
	}
	return w.prune(id, found, n)
}

// Link adds a link where there is room for it, else in the place of one that
// is not needed: its end is reached over another link as well. So no node
// that was reachable stops being so. It reports whether the link is there.
func (g *Graph) Link(from, to uint32) (bool, error) {
	if !g.Has(from) || !g.Has(to) || from == to {
		return false, fmt.Errorf("%w: link from %d to %d", ErrNode, from, to)
	}
	links := g.Links(from)
	if slices.Contains(links, to) {
		return true, nil
	}
	if len(links) < g.degree-1 { // the last one is kept for attach
		return true, g.join(from, to)
	}
	for i := len(links) - 1; i >= 0; i-- {
		for j, over := range links {
			if j != i && slices.Contains(g.Links(over), links[i]) {
				row, err := g.rows.Write(int(from) - g.first())
				if err != nil {
					return false, err
				}
				row[i] = to
				return true, nil
			}
		}
	}
	return false, nil
}

// attach links node id from the node closest before it that has its last
// link to spare. There is one: each node brings one and takes at most one.
func (g *Graph) attach(id uint32) error {
	for from := int(id) - 1; from >= g.first(); from-- {
		if g.Has(uint32(from)) && len(g.Links(uint32(from))) < g.degree {
			return g.join(uint32(from), id)
		}
	}
	return fmt.Errorf("graph: no node left to link node %d from", id)
}

// Linker makes links by pruning, for strategies that find the candidates
// themselves. It is for one goroutine at a time, and writes its graph.
type Linker struct {
	g *Graph
	p pruner
}

// NewLinker returns a linker of g, whose nodes are tokens of the given head.
func NewLinker(g *Graph, ix compute.Indexer, head compute.Head) *Linker {
	return &Linker{g: g, p: newPruner(ix, head, math.MaxInt, nil)}
}

// Link replaces the links of node id by at most Degree-1 of its candidates,
// near ones that point in different directions, and links back from each
// where that costs no node its way in (see [Graph.Link]). Candidates that are
// no nodes, the node itself and repetitions are passed over.
func (l *Linker) Link(id uint32, candidates []uint32) error {
	if !l.g.Has(id) {
		return fmt.Errorf("%w: %d", ErrNode, id)
	}
	cands := slices.DeleteFunc(slices.Clone(candidates), func(c uint32) bool { return c == id || !l.g.Has(c) })
	slices.Sort(cands)
	links := slices.Clone(l.p.prune(id, slices.Compact(cands), max(l.g.degree-1, 1)))
	if err := l.g.set(id, links); err != nil {
		return err
	}
	for _, from := range links {
		if _, err := l.g.Link(from, id); err != nil {
			return err
		}
	}
	return nil
}
