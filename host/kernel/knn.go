package kernel

import (
	"math/bits"
	"unsafe"
)

// knnKeys is the number of keys that are packed at once: with 128 columns
// 128 KiB, which stay in the second-level cache.
const knnKeys = 256

// KNNScratch is the number of f32 that [KNN] and [KNNRounded] need as scratch
// for keys of dimension dim.
func KNNScratch(dim int) int {
	// Packed keys; rounded ones; a tile's queries, products, least scores and
	// hits.
	tiles := knnKeys*(dim+1) + knnKeys*(dim+1)/2 + maxTileRows*(dim+3) + maxTile
	return max(tiles, dim+MaxQueries*knnKeys)
}

// KNN offers rows [lo, hi) of keys to the collectors of n queries (f32, n x
// keys.Dim), with their inner products as scores and row r under the id
// base+r: exact search for many queries at once, in f32. Products are formed
// in register tiles that only those above the worst kept score of their query
// leave. Calls over all keys in the order of their ids find the k nearest of
// each query; equal scores are ordered by id, lower first, and a NaN counts as
// -Inf, as in [TopK]. scratch has [KNNScratch](keys.Dim) f32.
//
// Keys are packed anew in each call, which some hundred queries pay for; up to
// [MaxQueries] read them as they are stored. A call takes about
// n*(hi-lo)*keys.Dim/50 ns; callers choose n and the range so that they can
// stop between calls, and run blocks of queries in parallel.
func KNN(q []float32, n int, keys Rows, lo, hi int, base uint32, tops []*TopK, scratch []float32) {
	if active == nil || keys.Dim == 0 || n <= MaxQueries {
		knnByScores(q, n, keys, lo, hi, base, tops, scratch)
		return
	}
	t := &active.tiles
	s := newSearch(t, keys.Dim, scratch)
	for j := lo; j < hi; j += knnKeys {
		m := min(knnKeys, hi-j)
		t.packRows(s.packed, keys, j, m, 0, keys.Dim)
		for i := 0; i < n; i += t.rows {
			rows := min(t.rows, n-i)
			copy(s.queries, q[i*keys.Dim:(i+rows)*keys.Dim])
			s.offer(t, t.top, keys.Dim, m, base+uint32(j), tops[i:i+rows])
		}
	}
}

// KNNRounded is [KNN] with queries and keys rounded to bf16 where the level
// has the instructions for their products, which then takes about half the
// time: its results are candidates, to build graphs from, and not exact. Other
// levels, and up to [MaxQueries] queries, run [KNN].
func KNNRounded(q []float32, n int, keys Rows, lo, hi int, base uint32, tops []*TopK, scratch []float32) {
	if active == nil || active.tiles.topBF16 == nil || keys.Dim == 0 || n <= MaxQueries {
		KNN(q, n, keys, lo, hi, base, tops, scratch)
		return
	}
	t, d := &active.tiles, keys.Dim
	pairs := (d + 1) / 2
	s := newSearch(t, d, scratch)
	for j := lo; j < hi; j += knnKeys {
		m := min(knnKeys, hi-j)
		t.packRows(s.packed, s.pairs(t, keys, j, m), 0, m, 0, pairs)
		for i := 0; i < n; i += t.rows {
			rows := min(t.rows, n-i)
			for r := range rows {
				to := words(s.queries[r*pairs : (r+1)*pairs])
				to[len(to)-1] = 0
				t.narrow(&to[0], &q[(i+r)*d : (i+r+1)*d][0], d)
			}
			s.offer(t, t.topBF16, pairs, m, base+uint32(j), tops[i:i+rows])
		}
	}
}

// search is the scratch of a search in tiles.
type search struct {
	packed, rounded []float32
	queries         []float32 // t.rows of them
	scores, least   []float32 // of a tile; of its queries
	hits            []uint32  // a bit for each product of a query
}

func newSearch(t *tileOps, dim int, scratch []float32) search {
	cut := func(n int) []float32 {
		c := scratch[:n]
		scratch = scratch[n:]
		return c
	}
	s := search{
		packed: cut(knnKeys * (dim + 1)), rounded: cut(knnKeys * (dim + 1) / 2),
		queries: cut(t.rows * (dim + 1)), scores: cut(t.rows * t.columns), least: cut(t.rows),
	}
	s.hits = unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(cut(t.rows)))), t.rows)
	return s
}

// offer forms the products of a tile's queries with m packed keys, of k
// elements, and hands those that may enter to the collectors. Queries that a
// tile has beyond them are whatever the scratch holds.
func (s *search) offer(t *tileOps, top tileTopFunc, k, m int, id uint32, tops []*TopK) {
	for i, t := range tops {
		s.least[i] = t.toExceed()
	}
	for j := 0; j < m; j += t.columns {
		if top(&s.queries[0], 4*k, &s.packed[j*k], k, &s.least[0], &s.scores[0], &s.hits[0]) == 0 {
			continue
		}
		keys := uint32(1)<<min(m-j, t.columns) - 1 // a shift by 32 gives 0
		for i, top := range tops {
			hits := s.hits[i] & keys
			if hits == 0 {
				continue
			}
			for ; hits != 0; hits &= hits - 1 {
				x := bits.TrailingZeros32(hits)
				top.push(s.scores[i*t.columns+x], id+uint32(j+x))
			}
			s.least[i] = top.toExceed()
		}
	}
}

// pairs returns rows [lo, lo+m) of keys in bf16, each lane of f32 holding two
// elements: in place where they are stored so.
func (s *search) pairs(t *tileOps, keys Rows, lo, m int) Rows {
	d := keys.Dim
	n := (d + 1) / 2
	if keys.DType == BF16 && d%2 == 0 {
		at := (*float32)(unsafe.Pointer(keys.from(lo, m)))
		return Rows{Dim: n, N: m, F32: unsafe.Slice(at, m*n)}
	}
	wide := s.queries[:d] // free until the keys are packed
	for i := range m {
		to := words(s.rounded[i*n : (i+1)*n])
		to[len(to)-1] = 0
		if keys.DType == BF16 {
			copy(to, keys.U16[(lo+i)*d:(lo+i+1)*d])
			continue
		}
		t.narrow(&to[0], &widened(keys, lo+i, wide)[0], d)
	}
	return Rows{Dim: n, N: m, F32: s.rounded[:m*n]}
}

// words returns the memory of x as 16-bit words.
func words(x []float32) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(x))), 2*len(x))
}

// knnByScores is [KNN] through [ScoreRange].
func knnByScores(q []float32, n int, keys Rows, lo, hi int, base uint32, tops []*TopK, scratch []float32) {
	d := keys.Dim
	row, scratch := scratch[:d], scratch[d:]
	var qs, out [MaxQueries][]float32
	for j := lo; j < hi; j += knnKeys {
		m := min(knnKeys, hi-j)
		for i := 0; i < n; i += MaxQueries {
			nq := min(MaxQueries, n-i)
			for x := range nq {
				qs[x], out[x] = q[(i+x)*d:(i+x+1)*d], scratch[x*knnKeys:][:m]
			}
			ScoreRange(qs[:nq], keys, j, j+m, out[:nq], row)
			for x := range nq {
				tops[i+x].Push(base+uint32(j), out[x])
			}
		}
	}
}
