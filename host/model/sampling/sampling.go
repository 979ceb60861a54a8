// Package sampling chooses the next token from the logits of a model: greedily, or at random after
// temperature, top-k and top-p, in the order in which Hugging Face transformers applies them.
package sampling

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

var (
	// ErrParams: the parameters are out of range.
	ErrParams = errors.New("invalid sampling parameters")
	// ErrLogits: there is no token to choose, which means that the model's numbers are broken.
	ErrLogits = errors.New("invalid logits")
)

// Params says how to sample. The zero value is greedy.
type Params struct {
	// Temperature divides the logits. 0 is greedy: the largest logit wins, of equal ones the
	// lowest id, and the other parameters do not matter.
	Temperature float64
	// TopK keeps the k largest logits and those equal to the k-th. 0 keeps all.
	TopK int
	// TopP keeps the most likely tokens whose probabilities, those within TopK, reach p: in
	// (0, 1], 1 keeps all. It may be 0 where the temperature is 0.
	TopP float64
	// Seed starts the random numbers: the same seed and logits give the same tokens.
	Seed uint64
}

// Sampler draws tokens. It is for one sequence and one goroutine.
type Sampler struct {
	p    Params
	rng  *rand.Rand
	cand []candidate // kept between steps, as is heap
	heap []float32
}

type candidate struct {
	id    int32
	logit float32
	p     float64 // not normalised
}

// New checks the parameters; errors wrap ErrParams.
func New(p Params) (*Sampler, error) {
	switch {
	case !(p.Temperature >= 0) || math.IsInf(p.Temperature, 1):
		return nil, fmt.Errorf("temperature %v: must be a number of at least 0 (%w)", p.Temperature, ErrParams)
	case p.TopK < 0:
		return nil, fmt.Errorf("top-k %d: must be at least 0, which means no limit (%w)", p.TopK, ErrParams)
	case !(p.TopP >= 0 && p.TopP <= 1), p.TopP == 0 && p.Temperature > 0:
		return nil, fmt.Errorf("top-p %v: must be above 0 and at most 1, which means no limit (%w)", p.TopP, ErrParams)
	}
	// The second word only tells this generator from others with the same seed.
	return &Sampler{p: p, rng: rand.New(rand.NewPCG(p.Seed, 0x7261_7361_6d70_6c65))}, nil
}

// Sample chooses a token: an index of logits, which are not changed. A logit of -Inf rules its
// token out. NaN, +Inf, or nothing but -Inf is an error that wraps ErrLogits. After the first
// call with a vocabulary of this size nothing is allocated.
func (s *Sampler) Sample(logits []float32) (int32, error) {
	best, err := argmax(logits)
	if err != nil || s.p.Temperature == 0 {
		return best, err
	}
	floor := float32(math.Inf(-1))
	if s.p.TopK > 0 && s.p.TopK < len(logits) {
		floor = s.kth(logits)
	}
	if cap(s.cand) < len(logits) {
		s.cand = make([]candidate, 0, len(logits))
	}
	cand := s.cand[:0]
	top := float64(logits[best])
	var sum float64
	for i, x := range logits {
		if x < floor || math.IsInf(float64(x), -1) {
			continue
		}
		p := math.Exp((float64(x) - top) / s.p.Temperature)
		cand = append(cand, candidate{int32(i), x, p})
		sum += p
	}
	if s.p.TopP < 1 {
		cand, sum = nucleus(cand, sum, s.p.TopP)
	}
	at := s.rng.Float64() * sum
	for i := range cand {
		if at -= cand[i].p; at < 0 {
			return cand[i].id, nil
		}
	}
	// Rounding can leave a rest; the last token that has any probability takes it.
	for i := len(cand) - 1; i >= 0; i-- {
		if cand[i].p > 0 {
			return cand[i].id, nil
		}
	}
	return best, nil
}

// kth gives the k-th largest logit, by a heap of k with the smallest of them at its root.
func (s *Sampler) kth(logits []float32) float32 {
	k := s.p.TopK
	if cap(s.heap) < k {
		s.heap = make([]float32, 0, k)
	}
	h := append(s.heap[:0], logits[:k]...)
	down := func(i int) {
		for {
			c := 2*i + 1
			if c >= k {
				return
			}
			if c+1 < k && h[c+1] < h[c] {
				c++
			}
			if h[i] <= h[c] {
				return
			}
			h[i], h[c] = h[c], h[i]
			i = c
		}
	}
	for i := k/2 - 1; i >= 0; i-- {
		down(i)
	}
	for _, x := range logits[k:] {
		if x > h[0] {
			h[0] = x
			down(0)
		}
	}
	s.heap = h
	return h[0]
}

// nucleus keeps the most likely candidates until their share of the sum reaches topP; the one
// that reaches it is kept, so that at least one is. It returns them with their sum.
func nucleus(cand []candidate, sum, topP float64) ([]candidate, float64) {
	// Candidates below this bound weigh less than 1-topP together, so that none of them is kept:
	// sorting a whole vocabulary for each token would be slow. The half is for rounding.
	bound := sum * (1 - topP) / float64(2*len(cand))
	kept := cand[:0]
	for _, c := range cand {
		if c.p >= bound {
			kept = append(kept, c)
		}
	}
	slices.SortFunc(kept, likelier)
	want, acc := topP*sum, 0.0
	for i := range kept {
		acc += kept[i].p
		if acc >= want {
			return kept[:i+1], acc
		}
	}
	return kept, acc
}

// likelier orders by falling logit, and equal ones by rising id.
func likelier(a, b candidate) int {
	switch {
	case a.logit > b.logit:
		return -1
	case a.logit < b.logit:
		return 1
	}
	return int(a.id) - int(b.id)
}

// argmax gives the first of the largest logits and checks all.
func argmax(logits []float32) (int32, error) {
	if len(logits) == 0 {
		return -1, fmt.Errorf("no logits (%w)", ErrLogits)
	}
	best := -1
	for i, x := range logits {
		switch {
		case x != x:
			return -1, fmt.Errorf("the logit of token %d of %d is NaN: the weights or the computation are broken (%w)", i, len(logits), ErrLogits)
		case math.IsInf(float64(x), 1):
			return -1, fmt.Errorf("the logit of token %d of %d is +Inf: the weights or the computation are broken (%w)", i, len(logits), ErrLogits)
		case math.IsInf(float64(x), -1):
		case best < 0 || x > logits[best]:
			best = i
		}
	}
	if best < 0 {
		return -1, fmt.Errorf("all %d logits are -Inf: no token is possible (%w)", len(logits), ErrLogits)
	}
	return int32(best), nil
}
