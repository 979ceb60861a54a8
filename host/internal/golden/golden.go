// Package golden reads the golden files that host/model/testdata/golden.py makes with Hugging Face
// transformers: what a model computes for a sequence of tokens. It is for tests.
package golden

import (
	"fmt"
	"math"

	"github.com/retrievalattention/ra/host/model/safetensors"
)

// File is a golden file. Everything in it was computed in float32 with eager attention.
type File struct {
	Tokens    []int32     // the sequence
	Positions []int       // indices of Tokens
	Logits    [][]float32 // of each position, given all tokens up to it: [len(Positions)][vocabulary]
	InvFreq   []float32   // rotary frequencies, radians per position: [head dimension / 2]
	Greedy    []int32     // the most likely continuation of Tokens; may be empty
}

// Load reads a golden file.
func Load(path string) (*File, error) {
	s, err := safetensors.OpenFile(path)
	if err != nil {
		return nil, err
	}
	f, err := read(s)
	if cerr := s.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("golden file %s: %w", path, err)
	}
	return f, nil
}

func read(s *safetensors.Set) (*File, error) {
	f := &File{}
	var err error
	if f.Tokens, err = ids(s, "tokens"); err != nil {
		return nil, err
	}
	positions, err := ids(s, "positions")
	if err != nil {
		return nil, err
	}
	for _, p := range positions {
		if int(p) >= len(f.Tokens) {
			return nil, fmt.Errorf("position %d of %d tokens", p, len(f.Tokens))
		}
		f.Positions = append(f.Positions, int(p))
	}
	if s.Has("greedy") {
		if f.Greedy, err = ids(s, "greedy"); err != nil {
			return nil, err
		}
	}
	if f.InvFreq, err = widen(s, "inv_freq"); err != nil {
		return nil, err
	}
	logits, err := widen(s, "logits")
	if err != nil {
		return nil, err
	}
	if len(positions) == 0 || len(logits) == 0 || len(logits)%len(positions) != 0 {
		return nil, fmt.Errorf("%d logits for %d positions", len(logits), len(positions))
	}
	for n := len(logits) / len(positions); len(logits) > 0; logits = logits[n:] {
		f.Logits = append(f.Logits, logits[:n:n])
	}
	return f, nil
}

func widen(s *safetensors.Set, name string) ([]float32, error) {
	t, err := s.Tensor(name)
	if err != nil {
		return nil, err
	}
	return t.Widen()
}

// ids reads whole numbers, which the file has as float32.
func ids(s *safetensors.Set, name string) ([]int32, error) {
	v, err := widen(s, name)
	if err != nil {
		return nil, err
	}
	out := make([]int32, len(v))
	for i, x := range v {
		if !(x >= 0 && x < 1<<24) || x != float32(math.Trunc(float64(x))) {
			return nil, fmt.Errorf("%s[%d] is %v, not a whole number from 0 to 2^24", name, i, x)
		}
		out[i] = int32(x)
	}
	return out, nil
}
