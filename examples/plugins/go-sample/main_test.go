//go:build !wasip1

package main

import (
	"math/rand/v2"
	"slices"
	"testing"

	ra "github.com/retrievalattention/ra/sdk/go"
	"github.com/retrievalattention/ra/sdk/go/ratest"
)

// With a stride of 1 everything is scored, so the answer is exact; with a
// larger one a best key whose neighbours are like it is still found.
func TestSample(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	const dim, tokens, at = 16, 500, 257
	keys, query := make([]float32, tokens*dim), make([]float32, dim)
	for i := range keys {
		keys[i] = float32(rng.NormFloat64())
	}
	for i := range query {
		query[i] = float32(rng.NormFloat64())
	}
	for p := at - 12; p <= at+12; p++ {
		for i := range dim {
			keys[p*dim+i] = query[i] * float32(40-max(p-at, at-p))
		}
	}
	store := &ratest.Store{HeadDim: dim, Keys: [][]float32{keys}, Indexed: []ra.Range{{Lo: 10, Hi: 480}}}
	call := &ratest.Call{Store: store, Tokens: 1, Heads: 1, Queries: query, TopK: 5}
	for _, stride := range []int{1, 8, 12} {
		answer, err := ratest.Search(&sample{stride: stride, best: 4}, call)
		if err != nil {
			t.Fatal(err)
		}
		got := slices.Clone(answer.Hits[0].IDs)
		slices.Sort(got)
		if want := []uint32{at - 2, at - 1, at, at + 1, at + 2}; !slices.Equal(got, want) {
			t.Errorf("stride %d: %v, want %v", stride, got, want)
		}
		if stride > 1 && answer.KeysScored > 200 {
			t.Errorf("stride %d: %d keys scored", stride, answer.KeysScored)
		}
	}
}
