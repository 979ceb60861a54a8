// Package retrieval holds the host's side of a search: the [Strategy]
// interface that native strategies and plugins implement, the form of a
// search call and its answer, and the checks that every answer must pass.
//
// [Flat] is the exact strategy: the oracle of all others and the fallback
// when a plugin fails.
//
// Index objects, each a package of its own and each a [kv.Attachment] of the
// view that it indexes: graph (links between tokens), lists (clusters of
// tokens, IVF), blob (bytes that only a strategy understands). Each but the
// last comes with a native strategy; plugins reach the same objects through
// the host.
package retrieval
