// Package kv is the vector store: the keys and values of every token, per
// layer and KV head, in CPU memory.
//
// A [Context] holds the keys and values of a token sequence. It only grows at
// its end; [Context.Fork] makes a second sequence that shares the first one's
// memory up to its length and goes on by itself, without copying.
//
// A [View] is one reading of a context: it gives each token of each layer a
// [State]. Static tokens are attended exactly at every step, indexed tokens
// only when a search finds them, dropped tokens never. The states are
// disjoint by construction.
//
// Keys are stored after rotary embedding, in rows of f32, bf16 or f16. A
// token's id is its position.
package kv
