// Package compute is the interface through which attention, retrieval and the
// engine reach arithmetic, and its CPU implementation.
//
// A backend keeps a model's weights and residual streams where it likes (CPU
// or GPU memory) and reads keys and values from a [kv.Context]. Its calls are
// coarse, so that a GPU can serve them with few transfers: a layer of
// prefill, a projection, the attention over a set of tokens.
package compute
