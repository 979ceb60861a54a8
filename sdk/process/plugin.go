package process

import (
	"context"
	"encoding/json"
	"io"

	ra "github.com/retrievalattention/ra/sdk/go"
)

// Description is what a plugin says about itself.
type Description struct {
	Name       string // lower-case letters, digits, - and _
	Version    string
	Doc        string   // one line
	Features   []string // what it needs: "keys", "values", "queries"
	Parameters []ra.Parameter
}

// json returns the description as the host reads it; export says that the
// plugin is an [Exporter].
func (d *Description) json(export bool) (string, error) {
	own := ra.Description{Name: d.Name, Version: d.Version, Doc: d.Doc, Parameters: d.Parameters}
	var m map[string]any
	if err := json.Unmarshal([]byte(own.JSON()), &m); err != nil {
		return "", err
	}
	features := append([]string{}, d.Features...)
	if export {
		features = append(features, "export")
	}
	m["features"] = features
	text, err := json.Marshal(m)
	return string(text), err
}

// Search is a search plugin. Calls may come at the same time, for different
// layers or views; Configure comes first and alone.
type Search interface {
	// Configure takes the parameters and a seed for what is random.
	Configure(p ra.Params, seed uint64) error
	// Build prepares the search of one layer of a view, all KV heads.
	Build(ctx context.Context, b *Build) error
	// Append makes the tokens of ranges, indexed a moment ago, findable.
	Append(ctx context.Context, layer int, s *Sequence, ranges []Range) error
	// Search emits hits for the queries of c.
	Search(ctx context.Context, c *Call) error
	// Forget says that views are gone.
	Forget(views []uint64)
}

// Exporter is implemented by plugins whose index costs more to build than to
// save. Export is called after a build, Import when another process is to go
// on from there.
type Exporter interface {
	Export(ctx context.Context, view uint64, layer int, w io.Writer) error
	// Import takes what Export wrote. b has no queries.
	Import(ctx context.Context, b *Build, r io.Reader) error
}

// NoIndex is embedded by plugins without parameters or an index.
type NoIndex struct{}

// Configure does nothing.
func (NoIndex) Configure(ra.Params, uint64) error { return nil }

// Build does nothing.
func (NoIndex) Build(context.Context, *Build) error { return nil }

// Append does nothing.
func (NoIndex) Append(context.Context, int, *Sequence, []Range) error { return nil }

// Forget does nothing.
func (NoIndex) Forget([]uint64) {}

// Range is the positions [Lo, Hi).
type Range struct{ Lo, Hi int }

// Build describes the index to build.
type Build struct {
	*Sequence
	Layer int
	Heads int // query heads; Heads / KVHeads share a KV head
	// Queries are the prefill's queries, a row each in the order
	// [tokens][heads]. It has no rows without the feature "queries", and when
	// an index is built again after a restart. Valid until Build returns.
	Queries Rows
}

// Call is a search: Tokens x Heads queries of each sequence. Query (s, t, h)
// has index (s*Tokens + t)*Heads + h.
type Call struct {
	Layer     int
	Heads     int // query heads; Heads / KVHeads share a KV head
	Tokens    int // of each sequence
	TopK      int // most hits a query
	Step      int // position of the first token
	Sequences []*Sequence

	queries []float32
	hits    []hits
	scored  int64
}

type hits struct {
	ids  []uint32
	bias []float32
}

// Count returns the number of queries.
func (c *Call) Count() int { return len(c.Sequences) * c.Tokens * c.Heads }

// Query returns the vector of query i.
func (c *Call) Query(i int) []float32 {
	d := c.Sequences[0].HeadDim
	return c.queries[i*d : (i+1)*d]
}

// Sequence returns the sequence that query i searches.
func (c *Call) Sequence(i int) *Sequence { return c.Sequences[i/(c.Tokens*c.Heads)] }

// KVHead returns the KV head of query i.
func (c *Call) KVHead(i int) int { return i % c.Heads / (c.Heads / c.Sequences[0].KVHeads) }

// Emit sets the hits of query i: positions of indexed tokens, each once, at
// most TopK. Bias, when not nil, has a finite number for each, which is added
// to the token's logit. Different queries may be emitted at the same time.
func (c *Call) Emit(i int, ids []uint32, bias []float32) { c.hits[i] = hits{ids, bias} }

// Scored says how many (query, key) pairs had their inner product computed,
// for the host's statistics.
func (c *Call) Scored(pairs int64) { c.scored = pairs }
