package bench

import (
	"fmt"
	"path/filepath"

	"github.com/retrievalattention/ra/host/internal/fbin"
	"github.com/retrievalattention/ra/host/internal/synth"
)

// SearchSet is what searches are measured on: the keys of one layer, the
// queries of its prefill and of the decode steps after it.
type SearchSet struct {
	Source   string // what it was made from
	Keys     int    // tokens of the prefill
	Appended int    // tokens after it
	Dim      int
	KVHeads  int
	Group    int // query heads that share a KV head
	Steps    int // decode steps

	heads []headSet
}

// headSet is the part of one KV head. Vectors are row-major f32.
type headSet struct {
	keys, values []float32 // [keys+appended][dim]
	prefill      []float32 // [rows][group][dim], spread evenly over the prefill's tokens
	queries      []float32 // [steps][group][dim]
}

// SynthOptions describe a made-up set.
type SynthOptions struct {
	Kind                  string // "mild" or "hard"
	Keys, Appended, Steps int
	Dim, KVHeads, Group   int
	Seed                  uint64
	Available             int64 // bytes of memory that there are; 0: not known
}

// SynthSet makes a set whose queries are out of the keys' distribution. The
// same options give the same set.
func SynthSet(o SynthOptions) (*SearchSet, error) {
	switch {
	case o.Kind != "mild" && o.Kind != "hard":
		return nil, badOption("there is no synthetic set %q; there are mild and hard", o.Kind)
	case o.Dim < 2 || o.Dim%2 != 0:
		return nil, badOption("the dimension is %d, must be positive and even", o.Dim)
	case o.Keys < 1 || o.KVHeads < 1 || o.Group < 1 || o.Steps < 1 || o.Appended < 0:
		return nil, badOption("%d keys, %d KV heads, %d query heads each, %d steps, %d tokens appended: all but the last must be positive", o.Keys, o.KVHeads, o.Group, o.Steps, o.Appended)
	}
	s := &SearchSet{
		Source: fmt.Sprintf("synth %s, seed %d", o.Kind, o.Seed),
		Keys:   o.Keys, Appended: o.Appended, Dim: o.Dim, KVHeads: o.KVHeads, Group: o.Group, Steps: o.Steps,
		heads: make([]headSet, o.KVHeads),
	}
	decode := max(o.Appended, o.Steps)
	// Keys and values as f32 and as stored, the prefill's queries as made and
	// as handed to a build.
	tokens := float64(o.Keys + decode)
	need := 4 * tokens * float64(o.Dim) * float64(o.KVHeads) * float64(4+2*o.Group)
	if o.Available > 0 && need > float64(o.Available) {
		return nil, fmt.Errorf("%w: a set of %d keys needs %.1f GiB; %s are available; ask for fewer keys or heads", ErrMemory, o.Keys, need/(1<<30), gib(o.Available))
	}
	errs := make([]error, o.KVHeads)
	spread(o.KVHeads, func(h int) {
		made, err := synth.New(synth.Params{
			Keys: o.Keys, Decode: decode, Dim: o.Dim, Group: o.Group, Hard: o.Kind == "hard",
			Seed: o.Seed + uint64(h)<<32, // sets of neighbouring seeds share no head
		})
		if err != nil {
			errs[h] = err
			return
		}
		s.heads[h] = headSet{
			keys: made.K[:(o.Keys+o.Appended)*o.Dim], values: made.V[:(o.Keys+o.Appended)*o.Dim],
			prefill: made.Queries, queries: made.Test[:o.Steps*o.Group*o.Dim],
		}
	})
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Names of the files that [FileSet] reads.
const (
	keysFile    = "keys.fbin"
	queriesFile = "queries.fbin"
)

// FileOptions describe a set in files.
type FileOptions struct {
	Dir             string
	Appended, Steps int
	Group           int // rows of queries.fbin that make one step
}

// FileSet reads keys.fbin and queries.fbin in a folder, as the keys and
// queries of one KV head: the last keys are those that are appended, the last
// queries those of the decode steps, the ones before them the prefill's.
// Values, which no search is measured by, are the keys.
func FileSet(o FileOptions) (*SearchSet, error) {
	if o.Group < 1 || o.Steps < 1 || o.Appended < 0 {
		return nil, badOption("%d query heads, %d steps, %d tokens appended: all but the last must be positive", o.Group, o.Steps, o.Appended)
	}
	keys, err := fbin.ReadFile(filepath.Join(o.Dir, keysFile))
	if err != nil {
		return nil, err
	}
	queries, err := fbin.ReadFile(filepath.Join(o.Dir, queriesFile))
	if err != nil {
		return nil, err
	}
	switch rows := queries.N / o.Group; {
	case keys.Dim%2 != 0:
		return nil, badOption("%s has vectors of dimension %d; pad them with a zero, it must be even", keysFile, keys.Dim)
	case keys.Dim != queries.Dim:
		return nil, badOption("%s has vectors of dimension %d, %s of %d; they must be the same", keysFile, keys.Dim, queriesFile, queries.Dim)
	case keys.N <= o.Appended:
		return nil, badOption("%s has %d vectors, of which %d are to be appended; append fewer", keysFile, keys.N, o.Appended)
	case rows < o.Steps:
		return nil, badOption("%s has %d vectors, %d steps of %d query heads; %d steps are asked for", queriesFile, queries.N, rows, o.Group, o.Steps)
	}
	at := (queries.N/o.Group - o.Steps) * o.Group * keys.Dim
	return &SearchSet{
		Source: o.Dir,
		Keys:   keys.N - o.Appended, Appended: o.Appended, Dim: keys.Dim, KVHeads: 1, Group: o.Group, Steps: o.Steps,
		heads: []headSet{{keys: keys.Data, values: keys.Data, prefill: queries.Data[:at], queries: queries.Data[at:][:o.Steps*o.Group*keys.Dim]}},
	}, nil
}

// step writes the queries of a decode step, [heads][dim].
func (s *SearchSet) step(t int, out []float32) {
	n := s.Group * s.Dim
	for h, head := range s.heads {
		copy(out[h*n:], head.queries[t*n:(t+1)*n])
	}
}

// prefillRows is the number of tokens whose prefill queries there are.
func (s *SearchSet) prefillRows() int { return len(s.heads[0].prefill) / (s.Group * s.Dim) }

// prefill writes the queries of all tokens of the prefill,
// [tokens][heads][dim]. Where there are fewer, tokens share them with
// neighbours.
func (s *SearchSet) prefill(out []float32) {
	n, rows := s.Group*s.Dim, s.prefillRows()
	for h, head := range s.heads {
		for t := range s.Keys {
			row := t * rows / s.Keys
			copy(out[(t*s.KVHeads+h)*n:], head.prefill[row*n:(row+1)*n])
		}
	}
}
