package graph

import (
	"math"

	"github.com/retrievalattention/ra/host/compute"
)

// Searcher walks graphs by best-first search: a beam holds the best nodes
// seen, and the best one whose links were not followed yet is next. It keeps
// its memory from one search to the next, and is for one goroutine at a time.
//
// [Searcher.Search] is a whole search; Begin, Push, Step and Take are its
// parts, for strategies that decide in between.
type Searcher struct {
	// Keep, when not nil, says which nodes may be found; the others are ways
	// to them alone.
	Keep func(id uint32) bool

	ix     compute.Indexer
	reader compute.Reader
	g      *Graph
	query  [1][]float32
	out    [1][]float32
	beam   beam
	seen   []uint64 // bitmap over rows of g
	ids    []uint32 // to be scored
	scores []float32
	scored int
}

// NewSearcher returns a searcher that scores by ix.
func NewSearcher(ix compute.Indexer) *Searcher { return &Searcher{ix: ix} }

// Open makes the searcher walk g, whose nodes are tokens of the given head.
// It must be called again when either has grown.
func (s *Searcher) Open(g *Graph, head compute.Head) {
	s.g = g
	if s.reader == nil {
		s.reader = s.ix.Reader(head)
	} else {
		s.reader.Reset(head)
	}
	if words := (g.rows.Len() + 63) / 64; len(s.seen) < words {
		s.seen = make([]uint64, words)
	}
}

// Begin starts a search for the nodes whose keys have the largest inner
// product with query (borrowed until the search ends), with a beam of the
// given width. Nothing is scored yet.
func (s *Searcher) Begin(query []float32, width int) {
	s.query[0] = query
	s.beam.reset(width)
	clear(s.seen[:(s.g.rows.Len()+63)/64])
	s.scored = 0
}

// Push scores the nodes among ids that this search has not scored and offers
// them to the beam. Ids that are no nodes are passed over.
func (s *Searcher) Push(ids []uint32) {
	s.ids = s.ids[:0]
	for _, id := range ids {
		if s.g.Has(id) {
			s.mark(id)
		}
	}
	s.offer()
}

// Step follows the links of the best count nodes of the beam that were not
// followed yet, and reports whether there was any.
func (s *Searcher) Step(count int) bool {
	s.ids = s.ids[:0]
	followed := false
	for range count {
		id, ok := s.beam.next()
		if !ok {
			break
		}
		followed = true
		for _, l := range s.g.rows.Row(int(id) - s.g.first()) {
			if l == none {
				break
			}
			s.mark(l)
		}
	}
	s.offer()
	return followed
}

// mark lists a node to be scored unless this search has listed it before.
func (s *Searcher) mark(id uint32) {
	row := int(id) - s.g.first()
	if w, bit := &s.seen[row/64], uint64(1)<<(row%64); *w&bit == 0 {
		*w |= bit
		s.ids = append(s.ids, id)
	}
}

// offer scores the listed nodes in one call and offers them to the beam.
func (s *Searcher) offer() {
	n := len(s.ids)
	if n == 0 {
		return
	}
	if len(s.scores) < n {
		s.scores = make([]float32, 2*n)
	}
	s.out[0] = s.scores[:n]
	s.reader.Score(s.query[:], s.ids, s.out[:])
	s.scored += n
	for i, id := range s.ids {
		if least := s.beam.least; !(s.scores[i] < least) { // most are; a NaN is not
			s.beam.offer(s.scores[i], id)
		}
	}
}

// Scored returns how many keys this search has scored.
func (s *Searcher) Scored() int { return s.scored }

// Take writes the best nodes of the beam, best first, with their scores, up
// to the shorter of the two slices, and returns how many. The search can go
// on.
func (s *Searcher) Take(ids []uint32, scores []float32) int {
	n, most := 0, min(len(ids), len(scores))
	for _, e := range s.beam.items[:s.beam.n] {
		if n == most {
			break
		}
		if id := e.id &^ followed; s.Keep == nil || s.Keep(id) {
			ids[n], scores[n] = id, e.score
			n++
		}
	}
	return n
}

// SearchParams set the effort of a search.
type SearchParams struct {
	Beam  int // nodes kept; more find more and cost more. At least the results asked for.
	Batch int // nodes followed at a time, so that their links' keys are fetched together; 0 means 4
}

// Search looks for the nodes whose keys have the largest inner product with
// query, from the graph's entries and the given seeds (nodes that may be good
// already; may be nil). It writes up to min(len(ids), len(scores)) of them,
// best first, and returns how many.
func (s *Searcher) Search(query []float32, p SearchParams, seeds []uint32, ids []uint32, scores []float32) int {
	batch := p.Batch
	if batch == 0 {
		batch = 4
	}
	s.Begin(query, max(p.Beam, min(len(ids), len(scores))))
	s.Push(seeds)
	s.Push(s.g.entries)
	for s.Step(batch) {
	}
	return s.Take(ids, scores)
}

// beam is the best nodes seen, best first; equal scores by id. Which of them
// were followed is marked in the id.
type beam struct {
	items []item
	n     int
	at    int     // all before it were followed
	least float32 // that a score must have to enter
}

type item struct {
	score float32
	id    uint32
}

const followed = 1 << 31

func (b *beam) reset(width int) {
	if cap(b.items) < width {
		b.items = make([]item, width)
	}
	b.items, b.n, b.at = b.items[:width], 0, 0
	b.least = float32(math.Inf(-1))
}

// offer inserts a node that is not in the beam, when it is good enough. A NaN
// score ranks below every number.
func (b *beam) offer(score float32, id uint32) {
	if score != score {
		score = float32(math.Inf(-1))
	}
	if b.n == len(b.items) {
		if b.n == 0 || !better(score, id, b.items[b.n-1]) {
			return
		}
		b.n--
	}
	lo, hi := 0, b.n
	for lo < hi {
		if mid := (lo + hi) / 2; better(score, id, b.items[mid]) {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	copy(b.items[lo+1:b.n+1], b.items[lo:b.n])
	b.items[lo] = item{score, id}
	b.n++
	b.at = min(b.at, lo)
	if b.n == len(b.items) {
		b.least = b.items[b.n-1].score
	}
}

func better(score float32, id uint32, than item) bool {
	if score != than.score {
		return score > than.score
	}
	return id < than.id&^followed
}

// next marks the best node that was not followed and returns it.
func (b *beam) next() (uint32, bool) {
	for ; b.at < b.n; b.at++ {
		if e := &b.items[b.at]; e.id&followed == 0 {
			id := e.id
			e.id |= followed
			b.at++
			return id, true
		}
	}
	return 0, false
}
