package graph

import (
	"errors"
	"io"

	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval/internal/cow"
	"github.com/retrievalattention/ra/host/retrieval/internal/wire"
)

// ErrFormat marks stored data that Load refuses.
var ErrFormat = wire.ErrFormat

// The stored form, see [wire]: degree; number of spans, their bounds; number
// of entries, the entries; the rows from the first node to the last, degree
// words each, [none] after the last link.
const (
	kind    = "GRPH"
	version = 1
)

// maxSpans is the most ranges of nodes that Load accepts.
const maxSpans = 1 << 16

// Save writes the graph, with what was inserted since it was built.
func (g *Graph) Save(w io.Writer) error {
	x := wire.NewWriter(w, kind, version)
	x.U32(uint32(g.degree))
	x.U32(uint32(len(g.spans)))
	for _, r := range g.spans {
		x.U32(uint32(r.Lo))
		x.U32(uint32(r.Hi))
	}
	x.U32(uint32(len(g.entries)))
	x.U32s(g.entries)
	for i := range g.rows.Len() {
		x.U32s(g.rows.Row(i))
	}
	return x.Close()
}

// Load reads a graph that Save wrote; its nodes must be positions below
// tokens. Data that is damaged, or that is no such graph, is refused with an
// error wrapping [ErrFormat].
func Load(mem cow.Memory, tokens int, r io.Reader) (*Graph, error) {
	x, err := wire.NewReader(r, kind, version)
	if err != nil {
		return nil, err
	}
	degree := x.Int("degree", 1, MaxDegree)
	var spans []kv.Range
	end := 0
	for range x.Int("number of ranges", 0, maxSpans) {
		s := kv.Range{Lo: x.Int("start of a range", end, tokens)}
		s.Hi = x.Int("end of a range", s.Lo, tokens)
		if x.Err() != nil {
			return nil, x.Err()
		}
		spans = append(spans, s)
		end = s.Hi
	}
	entries := x.List(x.Int("number of entries", 0, tokens))
	if x.Err() != nil {
		return nil, x.Err()
	}
	g, err := New(mem, spans, degree)
	if err != nil {
		return nil, err
	}
	g.entries = entries
	x.U32s(g.rows.Base())
	g.check(x)
	if err := x.Close(); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// check refuses links and entries that are no nodes.
func (g *Graph) check(x *wire.Reader) {
	for _, id := range g.entries {
		if !g.Has(id) {
			x.Fail("entry %d is no node", id)
		}
	}
	for i := range g.rows.Len() {
		ended := false
		for _, l := range g.rows.Row(i) {
			switch {
			case l == none:
				ended = true
			case ended || !g.Has(uint32(i+g.first())) || !g.Has(l):
				x.Fail("node %d has the link %d", i+g.first(), l)
			}
		}
		if x.Err() != nil {
			return
		}
	}
}
