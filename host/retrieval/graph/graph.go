package graph

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval/internal/cow"
)

// MaxDegree is the most links that a node can have.
const MaxDegree = 256

// none ends a list of links that is shorter than the degree.
const none = math.MaxUint32

// ErrNode marks a node or link outside the graph.
var ErrNode = errors.New("no such node in the graph")

// Graph is directed links between the indexed tokens of one KV head. A node's
// id is its token's position. It is a [kv.Attachment]: searches may run
// beside each other and beside Fork, a write excludes all else.
type Graph struct {
	degree  int
	spans   []kv.Range // of positions that are nodes: in order, apart
	rows    *cow.Table[uint32]
	entries []uint32 // where searches begin; replaced, never changed
}

// New returns a graph without links over the positions of the ranges, which
// are in order and do not overlap, with room for degree links a node.
func New(mem cow.Memory, nodes []kv.Range, degree int) (*Graph, error) {
	if degree < 1 || degree > MaxDegree {
		return nil, fmt.Errorf("graph of degree %d, it must be 1 to %d", degree, MaxDegree)
	}
	g := &Graph{degree: degree}
	for _, r := range nodes {
		if err := g.cover(r); err != nil {
			return nil, err
		}
	}
	var err error
	if g.rows, err = cow.New[uint32](mem, degree, g.end()-g.first()); err != nil {
		return nil, fmt.Errorf("memory for a graph: %w", err)
	}
	links := g.rows.Base()
	for i := range links {
		links[i] = none
	}
	return g, nil
}

// cover makes the positions of r nodes.
func (g *Graph) cover(r kv.Range) error {
	if r.Lo < g.end() || r.Hi < r.Lo || r.Hi >= math.MaxInt32 {
		return fmt.Errorf("nodes [%d, %d) after those up to %d: %w", r.Lo, r.Hi, g.end(), ErrNode)
	}
	if r.Len() == 0 {
		return nil
	}
	if last := len(g.spans) - 1; last >= 0 && g.spans[last].Hi == r.Lo {
		g.spans = append(g.spans[:last:last], kv.Range{Lo: g.spans[last].Lo, Hi: r.Hi})
		return nil
	}
	g.spans = append(g.spans[:len(g.spans):len(g.spans)], r)
	return nil
}

func (g *Graph) first() int {
	if len(g.spans) == 0 {
		return 0
	}
	return g.spans[0].Lo
}

func (g *Graph) end() int {
	if len(g.spans) == 0 {
		return 0
	}
	return g.spans[len(g.spans)-1].Hi
}

// Nodes returns the ranges of positions that are nodes, in order. Borrowed.
func (g *Graph) Nodes() []kv.Range { return g.spans }

// Len returns the number of nodes.
func (g *Graph) Len() int {
	n := 0
	for _, r := range g.spans {
		n += r.Len()
	}
	return n
}

// Degree returns the most links of a node.
func (g *Graph) Degree() int { return g.degree }

// Bytes returns the memory that the graph reaches.
func (g *Graph) Bytes() int64 { return g.rows.Bytes() }

// Has reports whether position id is a node.
func (g *Graph) Has(id uint32) bool {
	for i := len(g.spans) - 1; i >= 0; i-- {
		if int(id) >= g.spans[i].Lo {
			return int(id) < g.spans[i].Hi
		}
	}
	return false
}

// Links returns the links of node id, which must be one. Borrowed.
func (g *Graph) Links(id uint32) []uint32 {
	row := g.rows.Row(int(id) - g.first())
	n := len(row)
	for n > 0 && row[n-1] == none {
		n--
	}
	return row[:n]
}

// SetLinks replaces the links of a node: at most Degree of them, each a node,
// none twice, not the node itself.
func (g *Graph) SetLinks(id uint32, links []uint32) error {
	if !g.Has(id) {
		return fmt.Errorf("%w: %d", ErrNode, id)
	}
	if len(links) > g.degree {
		return fmt.Errorf("%d links for a node, at most %d", len(links), g.degree)
	}
	for i, l := range links {
		if !g.Has(l) || l == id || slices.Contains(links[:i], l) {
			return fmt.Errorf("link from %d to %d: %w, or it is linked already, or itself", id, l, ErrNode)
		}
	}
	return g.set(id, links)
}

// set is SetLinks for links known to be good.
func (g *Graph) set(id uint32, links []uint32) error {
	row, err := g.rows.Write(int(id) - g.first())
	if err != nil {
		return fmt.Errorf("links of node %d: %w", id, err)
	}
	fill(row, links)
	return nil
}

// fill writes links to a row.
func fill(row, links []uint32) {
	for i := copy(row, links); i < len(row); i++ {
		row[i] = none
	}
}

// Entries returns the nodes where searches begin. Borrowed.
func (g *Graph) Entries() []uint32 { return g.entries }

// SetEntries replaces the nodes where searches begin.
func (g *Graph) SetEntries(ids []uint32) error {
	for _, id := range ids {
		if !g.Has(id) {
			return fmt.Errorf("%w: entry %d", ErrNode, id)
		}
	}
	g.entries = slices.Clone(ids)
	return nil
}

// grow appends unlinked nodes.
func (g *Graph) grow(r kv.Range) error {
	if len(g.spans) == 0 {
		return errors.New("graph: nodes appended to a graph that was built of none")
	}
	old := g.end()
	if r.Lo < old || r.Hi < r.Lo || r.Hi >= math.MaxInt32 {
		return fmt.Errorf("append nodes [%d, %d) to a graph up to %d: %w", r.Lo, r.Hi, old, ErrNode)
	}
	for i := old; i < r.Hi; i++ {
		if err := g.rows.Grow(1); err != nil {
			return fmt.Errorf("memory for a graph: %w", err)
		}
		row, err := g.rows.Write(i - g.first())
		if err != nil {
			return err
		}
		fill(row, nil)
	}
	return g.cover(r)
}

// Fork returns a graph with the same nodes and links; see [kv.Attachment].
func (g *Graph) Fork() kv.Attachment { return g.fork() }

func (g *Graph) fork() *Graph {
	return &Graph{degree: g.degree, spans: slices.Clone(g.spans), rows: g.rows.Fork(), entries: g.entries}
}

// Close releases the graph's hold on its memory.
func (g *Graph) Close() error { return g.rows.Close() }
