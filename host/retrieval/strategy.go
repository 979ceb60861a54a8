package retrieval

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/retrievalattention/ra/host/kv"
)

// ErrHits marks an answer that breaks the rules of [Check].
var ErrHits = errors.New("invalid search result")

// Strategy finds, for the query vectors of a decode step, tokens worth
// attending. Calls for different layers or views may run at the same time.
type Strategy interface {
	// Info identifies the strategy in results and errors.
	Info() Info
	// Build prepares the search of one layer after prefill: every indexed
	// token of the view in that layer is to be found from now on.
	Build(ctx context.Context, b *Build) error
	// Append makes the tokens of r, indexed a moment ago, findable.
	Append(ctx context.Context, view *kv.View, layer int, r kv.Range) error
	// Search answers one call into res, which it resets.
	Search(ctx context.Context, call *Call, res *Result) error
	// Close releases what the strategy holds. No call may be under way.
	Close() error
}

// QueryUser is implemented by strategies whose Build reads the prefill's
// queries. They are kept only for those: at 128K tokens a layer of an 8B model
// has 2 GiB of them.
type QueryUser interface {
	UsesPrefillQueries() bool
}

// IndexSizer is implemented by strategies whose index lives in the memory of
// the keys and values: what it will need for a context of that many tokens, in
// bytes, is checked before the prefill.
type IndexSizer interface {
	IndexBytes(g kv.Geometry, tokens int) int64
}

// Info identifies a strategy.
type Info struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Runtime string `json:"runtime"`          // "native", "wasm" or "process"
	Digest  string `json:"digest,omitempty"` // "sha256:..." of the plugin file; empty when native
}

// String returns name, or name@digest with the digest shortened.
func (i Info) String() string {
	if i.Digest == "" {
		return i.Name
	}
	return i.Name + "@" + i.Digest[:min(len(i.Digest), len("sha256:")+12)]
}

// Build describes the index to build for one layer of a view.
type Build struct {
	View  *kv.View
	Layer int
	Heads int // query heads; Heads / KVHeads share a KV head
	// Queries are the prefill's query vectors after RoPE, f32,
	// [tokens][heads][head dim], or nil unless the strategy is a [QueryUser].
	// Borrowed until the call returns.
	Queries []float32
}

// Call is one search: the queries of one layer for one or more tokens of one
// or more sequences. Query (s, t, h) has index (s*Tokens+t)*Heads + h.
type Call struct {
	Views   []*kv.View // one a sequence
	Layer   int
	Tokens  int       // tokens per sequence: 1 in a decode step
	Heads   int       // query heads; Heads / KVHeads share a KV head
	Queries []float32 // f32 after RoPE, [sequence][token][head][head dim]; borrowed
	TopK    int       // most hits per query
	Step    int       // position of the (first) token, for error messages
}

// Count returns the number of queries in the call.
func (c *Call) Count() int { return len(c.Views) * c.Tokens * c.Heads }

// Dim returns the head dimension.
func (c *Call) Dim() int { return c.Views[0].Context().Geometry().HeadDim }

// Query returns the vector of query i.
func (c *Call) Query(i int) []float32 {
	d := c.Dim()
	return c.Queries[i*d : (i+1)*d]
}

// View returns the view that query i searches.
func (c *Call) View(i int) *kv.View { return c.Views[i/(c.Tokens*c.Heads)] }

// KVHead returns the KV head of query i.
func (c *Call) KVHead(i int) int {
	return i % c.Heads / (c.Heads / c.Views[0].Context().Geometry().KVHeads)
}

// Hits are the tokens found for one query. Bias, when not nil, is added to
// each token's logit.
type Hits struct {
	IDs       []uint32
	Bias      []float32
	Summaries Summaries
}

// MaxSummaries is the most summaries of one query.
const MaxSummaries = 1 << 14

// Summaries are synthetic entries of one query's softmax: entry j stands for
// exp(LogMults[j]) tokens of logit Logits[j] (scaled as attention scales, so
// q.k/sqrt(head dim) of what it stands for) and of value row j. They are how
// clusters (RetroInfer, arXiv 2505.02922) and the mass that was not retrieved
// enter the attention.
type Summaries struct {
	Logits, LogMults []float32
	Values           []float32 // [entries][head dim]
}

// Len returns the number of entries.
func (s *Summaries) Len() int { return len(s.Logits) }

// Add appends an entry; value is copied.
func (s *Summaries) Add(logit, logMult float32, value []float32) {
	s.Logits, s.LogMults = append(s.Logits, logit), append(s.LogMults, logMult)
	s.Values = append(s.Values, value...)
}

// Reset drops the entries, keeping memory.
func (s *Summaries) Reset() {
	s.Logits, s.LogMults, s.Values = s.Logits[:0], s.LogMults[:0], s.Values[:0]
}

// check returns an error wrapping [ErrHits] unless the entries are whole,
// finite and not too many.
func (s *Summaries) check(dim int) error {
	n := s.Len()
	if n > MaxSummaries {
		return fmt.Errorf("%w: %d summaries, at most %d are allowed", ErrHits, n, MaxSummaries)
	}
	if len(s.LogMults) != n || len(s.Values) != n*dim {
		return fmt.Errorf("%w: %d logits, %d multiplicities and %d value elements do not make summaries", ErrHits, n, len(s.LogMults), len(s.Values))
	}
	for _, x := range [][]float32{s.Logits, s.LogMults, s.Values} {
		for _, v := range x {
			if v-v != 0 {
				return fmt.Errorf("%w: a summary has the element %v", ErrHits, v)
			}
		}
	}
	return nil
}

// Result is the answer to a call. It may be reused; its slices are.
type Result struct {
	Hits       []Hits // one a query
	KeysScored int64  // (query, key) pairs whose inner product was computed
}

// Reset prepares res for n queries, keeping memory.
func (res *Result) Reset(n int) {
	for len(res.Hits) < n {
		res.Hits = append(res.Hits, Hits{})
	}
	res.Hits = res.Hits[:n]
	for i := range res.Hits {
		res.Hits[i].IDs = res.Hits[i].IDs[:0]
		res.Hits[i].Bias = nil
		res.Hits[i].Summaries.Reset()
	}
	res.KeysScored = 0
}

// Checker verifies hits. It keeps scratch memory between calls and is not
// safe for concurrent use.
type Checker struct {
	seen []uint64 // bitmap over positions, all zero between calls
}

// Check returns an error wrapping [ErrHits] unless the hits of query i are
// ids of indexed tokens of the query's view, each at most once, at most
// call.TopK of them, with finite biases, one an id, and finite summaries.
func (c *Checker) Check(call *Call, i int, h Hits) error {
	view := call.View(i)
	if len(h.IDs) > call.TopK {
		return fmt.Errorf("%w: query %d: %d hits, at most %d were asked for", ErrHits, i, len(h.IDs), call.TopK)
	}
	if h.Bias != nil && len(h.Bias) != len(h.IDs) {
		return fmt.Errorf("%w: query %d: %d biases for %d ids", ErrHits, i, len(h.Bias), len(h.IDs))
	}
	for j, b := range h.Bias {
		if math.IsNaN(float64(b)) || math.IsInf(float64(b), 0) {
			return fmt.Errorf("%w: query %d: the bias of id %d is %v", ErrHits, i, h.IDs[j], b)
		}
	}
	if err := h.Summaries.check(call.Dim()); err != nil {
		return fmt.Errorf("query %d: %w", i, err)
	}
	n := view.Len()
	if words := (n + 63) / 64; len(c.seen) < words {
		c.seen = make([]uint64, words)
	}
	done := 0
	defer func() {
		for _, id := range h.IDs[:done] {
			c.seen[id/64] = 0
		}
	}()
	for _, id := range h.IDs {
		switch {
		case int64(id) >= int64(n):
			return fmt.Errorf("%w: query %d: id %d is out of range, the context has %d tokens", ErrHits, i, id, n)
		case c.seen[id/64]>>(id%64)&1 == 1:
			return fmt.Errorf("%w: query %d: id %d was returned twice", ErrHits, i, id)
		}
		if s := view.State(call.Layer, int(id)); s != kv.Indexed {
			return fmt.Errorf("%w: query %d: id %d is a %s token, only indexed ones may be returned", ErrHits, i, id, s)
		}
		c.seen[id/64] |= 1 << (id % 64)
		done++
	}
	return nil
}
