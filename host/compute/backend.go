package compute

import (
	"context"

	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
)

// Backend runs the arithmetic of models and of attention. It is safe for
// concurrent use.
type Backend interface {
	// Name identifies the backend, "cpu" for instance.
	Name() string
	// Load places the weights. They are borrowed until the model is closed.
	Load(w *Weights) (Model, error)
	Attention
	Indexer
	// Close releases the backend. No call may be under way.
	Close() error
}

// Spec is the shape of a Llama-family model.
type Spec struct {
	Layers, Hidden, Intermediate, Vocab int
	Heads, KVHeads, HeadDim             int
	NormEps                             float32
	InvFreq                             []float32 // HeadDim/2 rotary frequencies, radians per position
}

// Geometry returns the shape of the model's keys and values stored as dtype.
func (s *Spec) Geometry(dtype kernel.DType) kv.Geometry {
	return kv.Geometry{Layers: s.Layers, KVHeads: s.KVHeads, HeadDim: s.HeadDim, DType: dtype}
}

// Weights are a model's parameters. Linear layers are stored output-major:
// row j of a matrix makes output j.
type Weights struct {
	Spec
	Embedding kernel.Rows // Vocab x Hidden
	Layers    []LayerWeights
	Norm      []float32   // Hidden
	Head      kernel.Rows // Vocab x Hidden; the embedding when tied
}

// LayerWeights are the parameters of one transformer layer.
type LayerWeights struct {
	AttentionNorm, MLPNorm []float32   // Hidden
	Q                      kernel.Rows // Heads*HeadDim x Hidden
	K, V                   kernel.Rows // KVHeads*HeadDim x Hidden
	O                      kernel.Rows // Hidden x Heads*HeadDim
	Gate, Up               kernel.Rows // Intermediate x Hidden
	Down                   kernel.Rows // Hidden x Intermediate
}

// Model is a loaded model. Its calls for one residual stream are made in
// order; different streams may be used at the same time.
type Model interface {
	Spec() *Spec
	// Embed starts the residual stream of the given tokens.
	Embed(tokens []int32) (Stream, error)
	// Prefill runs one layer over all tokens of s, which sit at positions
	// first, first+1, ... of kvc: stores their keys and values, attends
	// exactly and causally to every position up to each token's own, and
	// finishes the layer. When queries is not nil it receives the query
	// vectors after RoPE, [tokens][heads][head dim]. progress, when not nil,
	// is told of tokens done.
	Prefill(ctx context.Context, s Stream, layer, first int, kvc *kv.Context, queries []float32, progress func(tokens int)) error
	// Project starts one layer of a decode step for the tokens of s: stores
	// keys and values at positions first, first+1, ... of kvc and writes the
	// queries after RoPE, [tokens][heads][head dim].
	Project(s Stream, layer, first int, kvc *kv.Context, queries []float32) error
	// Finish completes the layer with the attention output
	// [tokens][heads][head dim]: output projection, residual, MLP.
	Finish(s Stream, layer int, attention []float32) error
	// Logits writes the next-token logits (Vocab) of token i of s.
	Logits(s Stream, i int, out []float32) error
	// Close releases what the model holds.
	Close() error
}

// Stream is the residual stream of some tokens, kept by the backend.
type Stream interface {
	Tokens() int
	Close() error
}

// Attention is exact attention of one token's query heads over sets of
// stored tokens. queries is [heads][head dim]; parts has one state a head,
// which the call adds to; query head h reads KV head h / (heads/KVHeads).
// Logits are q.k / sqrt(head dim) + bias.
type Attention interface {
	// AttendStatic adds the view's static tokens of the layer.
	AttendStatic(view *kv.View, layer int, queries []float32, parts []kernel.Partial) error
	// AttendHits adds, for head h, the tokens ids[h] with biases bias[h]
	// (nil for none).
	AttendHits(view *kv.View, layer int, queries []float32, ids [][]uint32, bias [][]float32, parts []kernel.Partial) error
}

// Scanner scores stored keys of one KV head against 1 to
// [kernel.MaxQueries] queries (f32, head dim), unscaled inner products.
type Scanner interface {
	// Score writes out[j][i] = queries[j] . key(ids[i]). Ids must be below
	// the context's reserved length.
	Score(kvc *kv.Context, layer, kvHead int, queries [][]float32, ids []uint32, out [][]float32)
	// ScoreRange writes out[j][i] = queries[j] . key(r.Lo+i).
	ScoreRange(kvc *kv.Context, layer, kvHead int, queries [][]float32, r kv.Range, out [][]float32)
	// TopK offers all keys of r to tops[j] with their scores.
	TopK(kvc *kv.Context, layer, kvHead int, queries [][]float32, r kv.Range, tops []*kernel.TopK)
}
