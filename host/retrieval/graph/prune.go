package graph

import (
	"cmp"
	"math"
	"slices"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
)

// pruner chooses links: near ones that point in different directions. It is
// for one goroutine.
type pruner struct {
	reader compute.Reader
	norm   func(id uint32) float32
	most   int // candidates looked at, the nearest ones
	key    [1][]float32
	out    [1][]float32
	ids    []uint32
	cands  []item // nearest first, by cosine to the node
	kept   []uint32
	left   []uint32
}

// newPruner returns a pruner that looks at most at so many candidates. norm
// gives the norms of keys; nil where they are not kept and must be computed.
func newPruner(ix compute.Indexer, head compute.Head, most int, norm func(id uint32) float32) pruner {
	p := pruner{reader: ix.Reader(head), norm: norm, most: most}
	p.key[0] = make([]float32, head.Dim())
	if norm == nil {
		reader, key := p.reader, make([]float32, head.Dim())
		p.norm = func(id uint32) float32 {
			reader.Key(id, key)
			return float32(math.Sqrt(float64(kernel.Dot(key, key))))
		}
	}
	return p
}

// near writes the cosines between key id and the keys ids, times the norm of
// key id, to the returned slice.
func (p *pruner) near(id uint32, ids []uint32) []float32 {
	p.reader.Key(id, p.key[0])
	if len(p.out[0]) < len(ids) {
		p.out[0] = make([]float32, 2*len(ids))
	}
	p.reader.Score(p.key[:], ids, p.out[:])
	out := p.out[0][:len(ids)]
	for i, other := range ids {
		if n := p.norm(other); n > 0 {
			out[i] /= n
		} else {
			out[i] = 0
		}
	}
	return out
}

// prune returns at most n of the candidates, nearest first, as links of node
// id. A candidate is passed over when one that is kept is nearer to it than
// the node is (the rule of relative neighbourhood graphs); if fewer than n are
// kept, the nearest of those passed over fill up. The result is valid until
// the next call.
func (p *pruner) prune(id uint32, candidates []uint32, n int) []uint32 {
	p.cands = p.cands[:0]
	for i, score := range p.near(id, candidates) {
		if score != score {
			score = 0
		}
		p.cands = append(p.cands, item{score, candidates[i]})
	}
	slices.SortFunc(p.cands, func(a, b item) int { return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.id, b.id)) })
	rest := p.cands[:min(len(p.cands), p.most)]
	norm := p.norm(id)
	p.kept, p.left = p.kept[:0], p.left[:0]
	for len(rest) > 0 && len(p.kept) < n {
		next := rest[0].id
		p.kept = append(p.kept, next)
		p.ids = p.ids[:0]
		for _, c := range rest[1:] {
			p.ids = append(p.ids, c.id)
		}
		scores := p.near(next, p.ids)
		nextNorm := p.norm(next)
		m := 0
		for i, c := range rest[1:] {
			// Cosines, both sides times the two other norms.
			if scores[i]*norm > c.score*nextNorm {
				p.left = append(p.left, c.id)
			} else {
				rest[m] = c
				m++
			}
		}
		rest = rest[:m]
	}
	if missing := n - len(p.kept); missing > 0 {
		p.kept = append(p.kept, p.left[:min(missing, len(p.left))]...)
	}
	return p.kept
}
