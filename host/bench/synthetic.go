package bench

import (
	"context"
	"errors"
	"math/rand/v2"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kv"
)

// Made-up keys and values. Keys of a head lie around centres that consecutive
// tokens share, with some of high norm and long ones at the start (the
// attention sinks), as keys of trained models do; values are normal.
const (
	centres    = 64   // of a head's keys
	runLength  = 32   // consecutive tokens around one centre
	sinks      = 4    // first tokens
	sinkNorm   = 4.0  // of sink keys, as a multiple of others
	highNorm   = 2.0  // of high-norm keys, likewise
	highEvery  = 1024 // about one key in so many has high norm
	ownSpread  = 0.7  // standard deviation of a key around its centre
	noiseTable = 1 << 12
)

// prepared stands in for the prefill of a document: Prefill stores made-up
// keys and values in place of computing them.
type prepared struct {
	compute.Model
	seed  uint64
	noise [noiseTable]float32 // normal
}

func newPrepared(m compute.Model, seed uint64) *prepared {
	p := &prepared{Model: m, seed: seed}
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range p.noise {
		p.noise[i] = float32(r.NormFloat64())
	}
	return p
}

// document is the residual stream of a document whose tokens are not computed.
type document int

func (d document) Tokens() int { return int(d) }
func (document) Close() error  { return nil }

// Embed starts a document that is not computed; a decode step is one token
// and goes to the model.
func (p *prepared) Embed(tokens []int32) (compute.Stream, error) {
	if len(tokens) > 1 {
		return document(len(tokens)), nil
	}
	return p.Model.Embed(tokens)
}

// Prefill stores made-up keys and values for all tokens of the document.
func (p *prepared) Prefill(ctx context.Context, s compute.Stream, layer, first int, kvc *kv.Context, queries []float32, progress func(int)) error {
	d, ok := s.(document)
	if !ok {
		return errors.New("only documents are prepared")
	}
	geo := kvc.Geometry()
	spread(geo.KVHeads, func(head int) {
		if ctx.Err() == nil {
			p.fill(kvc, layer, head, first, int(d))
		}
	})
	// A strategy that learns from the prefill's queries gets normal ones.
	r := rand.NewPCG(p.seed, uint64(layer))
	for i := range queries {
		queries[i] = p.noise[r.Uint64()%noiseTable]
	}
	if progress != nil {
		progress(int(d))
	}
	return ctx.Err()
}

// fill writes the keys and values of one head.
func (p *prepared) fill(kvc *kv.Context, layer, head, first, n int) {
	geo := kvc.Geometry()
	r := rand.NewPCG(p.seed, uint64(layer*geo.KVHeads+head+1))
	at := func(bits uint64) float32 { return p.noise[bits%noiseTable] }
	centre := make([]float32, centres*geo.HeadDim)
	for i := range centre {
		centre[i] = at(r.Uint64())
	}
	key, value := make([]float32, geo.HeadDim), make([]float32, geo.HeadDim)
	var mid []float32
	for seg := range kvc.Segments(layer, head, first, first+n) {
		for i := range seg.Keys.N {
			if pos := seg.Start + i; pos%runLength == 0 || mid == nil {
				mid = centre[int(r.Uint64()%centres)*geo.HeadDim:][:geo.HeadDim]
			}
			norm := float32(1)
			switch {
			case seg.Start+i < sinks:
				norm = sinkNorm
			case r.Uint64()%highEvery == 0:
				norm = highNorm
			}
			for j := range key {
				bits := r.Uint64()
				key[j] = norm * (mid[j] + ownSpread*at(bits))
				value[j] = at(bits >> 32)
			}
			seg.Keys.Narrow(i, key)
			seg.Values.Narrow(i, value)
		}
	}
}
