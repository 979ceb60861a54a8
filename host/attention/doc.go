// Package attention computes one decode step's attention of a layer: exactly
// over the view's static tokens, exactly over the tokens that a search
// returns, and merged by log-sum-exp as RetrievalAttention does (arXiv
// 2409.10516, algorithm 1).
//
// Static and retrieved sets are disjoint, so the result is the exact softmax
// over their union.
package attention
