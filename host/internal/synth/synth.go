// Package synth makes seeded sets of keys and queries with the shape of one
// KV head's attention, for tests and benchmarks of search:
//
//   - keys in clusters (topics) that follow each other along the sequence,
//     with a spread of norms, a few keys of high norm, and sinks at the start;
//   - queries out of the keys' distribution: another mean, another covariance,
//     each tied to several topics at once, drifting along the sequence, and
//     different from one query head of the group to the next.
package synth

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/retrievalattention/ra/host/kv"
)

// Params describe a set.
type Params struct {
	Keys    int // tokens of the prefill
	Decode  int // tokens after it, whose queries are held out
	Dim     int
	Group   int  // query heads that share the KV head
	Hard    bool // more noise around more, fainter topics
	Seed    uint64
	Prefill int // tokens, evenly spaced, whose prefill queries are made; 0 means all
}

// Set is a seeded set. Vectors are row-major f32.
type Set struct {
	Params
	K, V    []float32 // [keys+decode][dim]: the decode tokens' keys follow the prefill's
	Queries []float32 // [prefill][group][dim]: queries of the prefill
	Test    []float32 // [decode][group][dim]: queries of the decode steps
}

// shape are the constants that make a set mild or hard.
type shape struct {
	topic, noise       float64 // of keys: weight of the topic, of what is a key's own
	query, queryNoise  float64 // of queries
	topics             int     // that a query is tied to
	tokens             int     // per topic, on average
	keyMean, queryMean float64 // norms of the means
}

var (
	mild = shape{topic: 1, noise: .9, query: 1, queryNoise: .7, topics: 3, tokens: 128, keyMean: 6, queryMean: 4}
	hard = shape{topic: 1, noise: 1.2, query: 1, queryNoise: 1, topics: 4, tokens: 64, keyMean: 6, queryMean: 4}
)

const (
	sinks    = 4    // tokens at the start that every query likes
	highNorm = .004 // share of keys of high norm
	section  = 2048 // tokens that draw their topics from one small pool
	pool     = 12
	run      = 24 // tokens of one topic in a row, on average
	spectrum = .5 // exponent by which the dimensions' standard deviations fall
	hold     = 12 // tokens that a query's far topics stay, on average
)

// New makes the set.
func New(p Params) (*Set, error) {
	if p.Keys < 1 || p.Decode < 0 || p.Dim < 2 || p.Group < 1 || p.Prefill < 0 || p.Prefill > p.Keys {
		return nil, fmt.Errorf("synthetic set %+v: keys, head dimension and group must be positive, prefill queries no more than keys", p)
	}
	if p.Prefill == 0 {
		p.Prefill = p.Keys
	}
	sh := mild
	if p.Hard {
		sh = hard
	}
	n, d := p.Keys+p.Decode, p.Dim
	s := &Set{
		Params: p,
		K:      make([]float32, n*d), V: make([]float32, n*d),
		Queries: make([]float32, p.Prefill*p.Group*d),
		Test:    make([]float32, p.Decode*p.Group*d),
	}
	g := newGenerator(p, sh)
	made := 0
	for t := range n {
		g.step(t)
		g.key(t, s.K[t*d:(t+1)*d], s.V[t*d:(t+1)*d])
		var out []float32
		switch {
		case t >= p.Keys:
			out = s.Test[(t-p.Keys)*p.Group*d:]
		case made < p.Prefill && t*p.Prefill >= made*p.Keys:
			out = s.Queries[made*p.Group*d:]
			made++
		default:
			continue
		}
		for h := range p.Group {
			g.queryOf(h, out[h*d:(h+1)*d])
		}
	}
	return s, nil
}

// Fill appends the tokens [lo, hi) of the set to head (0, 0) of c.
func (s *Set) Fill(c *kv.Context, lo, hi int) error {
	if err := c.Reserve(hi - lo); err != nil {
		return err
	}
	at := c.Len()
	for t := lo; t < hi; t++ {
		c.Put(0, 0, at+t-lo, s.K[t*s.Dim:(t+1)*s.Dim], s.V[t*s.Dim:(t+1)*s.Dim])
	}
	c.Commit(hi - lo)
	return nil
}

// Query returns the query of head h at decode step t.
func (s *Set) Query(t, h int) []float32 {
	at := (t*s.Group + h) * s.Dim
	return s.Test[at : at+s.Dim]
}

type generator struct {
	shape
	p                    Params
	r                    *rand.Rand
	centres              [][]float64 // of the topics, about unit norm
	keyScale, queryScale []float64   // covariances: std by dimension
	keyMean, queryMean   []float64
	sink                 []float64
	pool                 []int // topics of the section
	topic                int   // of the token
	seen                 []int // topics by section start, for queries to look back to
	heads                []head
	acc                  []float64
}

// head is what one query head looks at besides the token's own topic.
type head struct {
	far  []int
	mean []float64
}

func newGenerator(p Params, sh shape) *generator {
	g := &generator{shape: sh, p: p, r: rand.New(rand.NewPCG(p.Seed, 0x5eed)), acc: make([]float64, p.Dim)}
	d := p.Dim
	for range max(p.Keys/sh.tokens, 4) {
		g.centres = append(g.centres, g.unit(d, nil))
	}
	for j := range d {
		// Spectra fall off, in different directions for keys and queries.
		g.keyScale = append(g.keyScale, math.Pow(float64(1+j), -spectrum))
		g.queryScale = append(g.queryScale, math.Pow(float64(1+(j*7+3)%d), -spectrum))
	}
	normalise(g.keyScale)
	normalise(g.queryScale)
	g.keyMean = g.unit(d, nil)
	g.sink = g.unit(d, nil)
	g.queryMean = g.unit(d, g.sink)
	for range p.Group {
		g.heads = append(g.heads, head{mean: g.unit(d, nil)})
	}
	return g
}

// unit returns a random unit vector, leaning towards another where one is
// given.
func (g *generator) unit(d int, towards []float64) []float64 {
	v := make([]float64, d)
	var ss float64
	for j := range v {
		v[j] = g.r.NormFloat64() / math.Sqrt(float64(d))
		if towards != nil {
			v[j] += towards[j]
		}
		ss += v[j] * v[j]
	}
	for j := range v {
		v[j] /= math.Sqrt(ss)
	}
	return v
}

// normalise scales v to a mean square of 1.
func normalise(v []float64) {
	var ss float64
	for _, x := range v {
		ss += x * x
	}
	f := math.Sqrt(float64(len(v)) / ss)
	for j := range v {
		v[j] *= f
	}
}

// step moves the sequence on to token t.
func (g *generator) step(t int) {
	if t%section == 0 {
		g.pool = g.pool[:0]
		for range pool {
			g.pool = append(g.pool, g.r.IntN(len(g.centres)))
		}
		g.seen = append(g.seen, g.pool...)
	}
	if t == 0 || g.r.IntN(run) == 0 {
		g.topic = g.pool[g.r.IntN(len(g.pool))]
		if g.r.IntN(5) == 0 {
			g.topic = g.r.IntN(len(g.centres))
		}
	}
	for h := range g.heads {
		far := &g.heads[h].far
		for len(*far) < g.topics-1 {
			*far = append(*far, g.seen[g.r.IntN(len(g.seen))])
		}
		if g.r.IntN(hold) == 0 {
			(*far)[g.r.IntN(len(*far))] = g.seen[g.r.IntN(len(g.seen))]
		}
	}
}

func (g *generator) key(t int, key, value []float32) {
	d := float64(len(key))
	c := g.centres[g.topic]
	r := math.Exp(.12 * g.r.NormFloat64())
	if g.r.Float64() < highNorm {
		r *= 1.3 + .5*g.r.Float64()
	}
	root := math.Sqrt(d)
	for j := range key {
		x := (g.shape.topic*c[j]*root + g.noise*g.r.NormFloat64()) * g.keyScale[j]
		if t < sinks {
			x = 4*g.sink[j]*root + .2*x
		}
		key[j] = float32(r*x + g.shape.keyMean*g.keyMean[j])
		value[j] = float32(c[j]*root + .5*g.r.NormFloat64())
	}
}

func (g *generator) queryOf(h int, q []float32) {
	hd := &g.heads[h]
	root := math.Sqrt(float64(len(q)))
	clear(g.acc)
	add := func(topic int, w float64) {
		for j, x := range g.centres[topic] {
			g.acc[j] += w * x * root
		}
	}
	add(g.topic, .8*g.query)
	for i, topic := range hd.far {
		add(topic, g.query*(1-.15*float64(i)))
	}
	for j := range q {
		x := (g.acc[j] + g.queryNoise*g.r.NormFloat64()) * g.queryScale[j]
		q[j] = float32(x + g.shape.queryMean*(g.queryMean[j]+.5*hd.mean[j]))
	}
}
