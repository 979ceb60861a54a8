// Package lists holds inverted lists (IVF) over the indexed tokens of a KV
// head: k-means clusters, each with its tokens, its centroid and, if asked
// for, the mean key and value that stand for it in a summary.
//
// Where to change what:
//
//	lists.go     the object: tokens, centroids, summaries, appending, forks
//	build.go     k-means, segment by segment (RetroInfer, arXiv 2505.02922)
//	search.go    ranking lists and scanning them, whole and in its parts
//	save.go      the stored form
//	strategy.go  all of it as a retrieval.Strategy
//
// A token's id is its position. Memory lies outside the Go heap; a fork of a
// view shares it and appends for itself.
package lists
