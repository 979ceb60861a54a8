// Package retrieval holds the host's side of a search: the [Strategy]
// interface that native strategies and plugins implement, the form of a
// search call and its answer, and the checks that every answer must pass.
//
// [Flat] is the exact strategy: the oracle of all others and the fallback
// when a plugin fails.
package retrieval
