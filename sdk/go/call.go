package ra

import abi "github.com/retrievalattention/ra/sdk/abi/v1"

// MaxQueries is the largest number of queries of one kernel call.
const MaxQueries = abi.MaxQueries

// Query selects a query vector. One of a search call is made by
// [Call.Query].
type Query uint32

// Call is one search: the queries of one layer for one or more tokens of one
// or more sequences. An instance answers KVHeads of the model's KV heads,
// from FirstKVHead on; others get the rest.
type Call struct {
	Layer       int
	Sequences   int
	Tokens      int // of each sequence
	Heads       int // query heads of the model
	FirstKVHead int
	KVHeads     int
	Group       int // query heads that share a KV head
	HeadDim     int
	TopK        int // most hits that a query may have

	u32 arena[uint32]
	f32 arena[float32]
}

// BeginCall returns the search call under way. The SDK does this for a
// plugin; harnesses that call Search themselves use it.
func BeginCall(layer int) *Call {
	var f [abi.QueriesWords]uint32
	queriesInfo(f[:])
	c := &current
	c.Layer = layer
	c.Sequences, c.Tokens, c.Heads = int(f[abi.QueriesSequences]), int(f[abi.QueriesTokens]), int(f[abi.QueriesHeads])
	c.FirstKVHead, c.KVHeads = int(f[abi.QueriesFirstKVHead]), int(f[abi.QueriesKVHeads])
	c.Group, c.HeadDim, c.TopK = int(f[abi.QueriesGroup]), int(f[abi.QueriesHeadDim]), int(f[abi.QueriesTopK])
	c.u32.reset()
	c.f32.reset()
	return c
}

// current is the call under way: one at a time.
var current Call

// Query selects the query of a sequence, token and query head.
func (c *Call) Query(sequence, token, head int) Query {
	return Query((sequence*c.Tokens+token)*c.Heads + head)
}

// Uint32s lends n elements of unspecified content until the search returns.
func (c *Call) Uint32s(n int) []uint32 { return c.u32.take(n) }

// Float32s lends n elements of unspecified content until the search returns.
func (c *Call) Float32s(n int) []float32 { return c.f32.take(n) }

// Batch is up to MaxQueries queries that share their keys, so that a kernel
// reads each key once for all of them.
type Batch struct {
	Sequence, KVHead int
	First            Query
	N                int

	at, group, heads int // position of First in the KV head's order
}

// At returns the batch's query j.
func (b *Batch) At(j int) Query {
	i, g := b.at+j, b.at%b.group
	return b.First + Query((i/b.group-b.at/b.group)*b.heads+i%b.group-g)
}

// Batches yields all queries that the call is to answer, in batches of at
// most limit (0 for the largest).
func (c *Call) Batches(limit int) func(yield func(Batch) bool) {
	if limit <= 0 || limit > MaxQueries {
		limit = MaxQueries
	}
	return func(yield func(Batch) bool) {
		for s := range c.Sequences {
			for h := c.FirstKVHead; h < c.FirstKVHead+c.KVHeads; h++ {
				for at := 0; at < c.Tokens*c.Group; at += limit {
					first := c.Query(s, at/c.Group, h*c.Group+at%c.Group)
					n := min(limit, c.Tokens*c.Group-at)
					if !yield(Batch{Sequence: s, KVHead: h, First: first, N: n, at: at, group: c.Group, heads: c.Heads}) {
						return
					}
				}
			}
		}
	}
}

// arena lends slices out of one buffer. What did not fit in a round makes the
// buffer of the next ones larger, so after a few calls nothing is allocated.
type arena[T any] struct {
	buf        []T
	used, need int
	grew       bool
}

func (a *arena[T]) take(n int) []T {
	a.need += n
	if a.used+n > len(a.buf) {
		return make([]T, n)
	}
	s := a.buf[a.used : a.used+n : a.used+n]
	a.used += n
	return s
}

func (a *arena[T]) reset() {
	if a.need > len(a.buf) {
		a.buf = make([]T, a.need+a.need/4)
		a.grew = true
	}
	a.used, a.need = 0, 0
}
