// Package graph holds graphs over the indexed tokens of a KV head, built from
// the prefill's queries so that queries out of the keys' distribution find
// their way, and search over them.
//
// Where to change what:
//
//	graph.go     the object: nodes, links, entries, forks
//	build.go     bulk building: RoarGraph (arXiv 2408.08933) and what differs
//	prune.go     which candidates become links
//	insert.go    tokens appended while generating
//	walk.go      what is reached from the entries
//	search.go    best-first search, whole and in its parts
//	save.go      the stored form
//	strategy.go  all of it as a retrieval.Strategy
//
// A node's id is its token's position. Links lie in rows of fixed width
// outside the Go heap, 4 bytes a link; a fork of a view shares them and copies
// the rows that it changes.
package graph
