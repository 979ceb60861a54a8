package lists

import (
	"slices"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
)

// Searcher searches lists for the queries of a group together: a list that
// several of them choose is read once. It keeps its memory from one search to
// the next, and is for one goroutine at a time.
//
// [Searcher.Search] is a whole search; Rank and Scan are its parts.
type Searcher struct {
	// Keep, when not nil, says which tokens may be found.
	Keep func(id uint32) bool

	ix     compute.Indexer
	reader compute.Reader
	l      *Lists
	scores [kernel.MaxQueries][]float32 // of the centroids
	top    *kernel.TopK
	picked []uint32
	worth  []float32
	chosen []uint8 // by list: a bit a query
	ids    []uint32
	out    [kernel.MaxQueries][]float32
}

// NewSearcher returns a searcher that scores by ix.
func NewSearcher(ix compute.Indexer) *Searcher {
	return &Searcher{ix: ix, top: kernel.NewTopK(0)}
}

// Open makes the searcher search l, whose tokens are those of the given head.
// It must be called again when either has grown.
func (s *Searcher) Open(l *Lists, head compute.Head) {
	s.l = l
	if s.reader == nil {
		s.reader = s.ix.Reader(head)
	} else {
		s.reader.Reset(head)
	}
	if n := l.Lists(); len(s.chosen) < n {
		s.chosen = make([]uint8, n)
		s.picked, s.worth = make([]uint32, n), make([]float32, n)
		for j := range s.scores {
			s.scores[j] = make([]float32, n)
		}
	}
}

// Rank writes the n lists whose centroids have the largest inner product with
// the query, best first, and returns how many there are.
func (s *Searcher) Rank(query []float32, lists []uint32) int {
	s.rank([][]float32{query})
	return s.best(0, lists)
}

func (s *Searcher) rank(queries [][]float32) {
	kernel.ScoreRange(queries, s.l.Centroids(), 0, s.l.Lists(), s.scores[:len(queries)], nil)
}

func (s *Searcher) best(query int, lists []uint32) int {
	s.top.Reset(min(len(lists), s.l.Lists()))
	s.top.Push(0, s.scores[query][:s.l.Lists()])
	return s.top.Take(lists, s.worth)
}

// Scan scores the tokens of a list for the queries, 1 to
// [kernel.MaxQueries], offers them to the queries' collectors, and returns
// how many inner products were computed.
func (s *Searcher) Scan(list int, queries [][]float32, tops []*kernel.TopK) int {
	s.ids = s.l.Members(list, s.ids[:0])
	if s.Keep != nil {
		s.ids = slices.DeleteFunc(s.ids, func(id uint32) bool { return !s.Keep(id) })
	}
	n := len(s.ids)
	for j := range queries {
		if len(s.out[j]) < n {
			s.out[j] = make([]float32, 2*n)
		}
	}
	s.reader.Score(queries, s.ids, s.out[:len(queries)])
	for j, t := range tops[:len(queries)] {
		t.PushList(s.ids, s.out[j][:n])
	}
	return n * len(queries)
}

// SearchParams set the effort of a search. A query reads its best lists until
// Lists are read or, where Keys is not 0, until the keys read reach Keys.
type SearchParams struct {
	Lists int // 0 means no limit
	Keys  int // 0 means no limit
}

// Search offers the tokens of each query's best lists to its collector and
// returns how many inner products with keys were computed.
func (s *Searcher) Search(queries [][]float32, p SearchParams, tops []*kernel.TopK) int {
	l := s.l
	s.rank(queries)
	most := l.Lists()
	if p.Lists > 0 {
		most = min(most, p.Lists)
	}
	for j := range queries {
		n, keys := s.best(j, s.picked[:most]), 0
		for _, list := range s.picked[:n] {
			s.chosen[list] |= 1 << j
			if keys += l.Count(int(list)); p.Keys > 0 && keys >= p.Keys {
				break
			}
		}
	}
	scored := 0
	var qs [kernel.MaxQueries][]float32
	var ts [kernel.MaxQueries]*kernel.TopK
	for list, chosen := range s.chosen[:l.Lists()] {
		if chosen == 0 {
			continue
		}
		s.chosen[list] = 0
		n := 0
		for j, q := range queries {
			if chosen>>j&1 == 1 {
				qs[n], ts[n] = q, tops[j]
				n++
			}
		}
		scored += s.Scan(list, qs[:n], ts[:n])
	}
	return scored
}
