package compute

import (
	"context"

	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
)

// Head names the stored keys and values of one KV head.
type Head struct {
	Context *kv.Context
	Layer   int
	KVHead  int
}

// Dim returns the head dimension.
func (h Head) Dim() int { return h.Context.Geometry().HeadDim }

// Indexer is the arithmetic that building and walking a search index takes,
// over the stored keys of one KV head. Inner products are unscaled. It is
// safe for concurrent use.
type Indexer interface {
	Scanner
	// Reader returns a reader of the head's keys.
	Reader(head Head) Reader
	// KNN writes, for each query of the row-major matrix queries, the k keys
	// of the ranges with the largest inner products, best first, to
	// ids[i*k:] and scores[i*k:] (which may be nil), and returns how many each row has: k, or
	// fewer where there are not so many keys. progress, when not nil, is told
	// of queries done, by several goroutines at once.
	KNN(ctx context.Context, head Head, queries kernel.Rows, ranges []kv.Range, k int, ids []uint32, scores []float32, progress func(queries int)) (int, error)
	// Project writes out[i*m.N+j] = row(r.Lo+i) . m[j]: the keys times a
	// small matrix, whose rows have head dimension.
	Project(ctx context.Context, head Head, r kv.Range, m kernel.Rows, out []float32) error
	// Norms writes the Euclidean norms of the keys of r.
	Norms(ctx context.Context, head Head, r kv.Range, out []float32) error
}

// Reader reads listed keys of one KV head in many small calls, for one
// goroutine at a time. Ids must be below the length that the context had
// reserved when the reader was made or last reset.
type Reader interface {
	// Reset makes it read another head, or what a context has reserved since.
	Reset(head Head)
	// Score writes out[j][i] = queries[j] . key(ids[i]) for 1 to
	// [kernel.MaxQueries] queries.
	Score(queries [][]float32, ids []uint32, out [][]float32)
	// Key writes key id as f32 to dst (head dim).
	Key(id uint32, dst []float32)
	// Value writes value id as f32 to dst (head dim).
	Value(id uint32, dst []float32)
}
