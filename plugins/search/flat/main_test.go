//go:build !wasip1

package main

import (
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"

	ra "github.com/retrievalattention/ra/sdk/go"
	"github.com/retrievalattention/ra/sdk/go/ratest"
)

// The host learns the plugin's name and parameters.
func TestDescription(t *testing.T) {
	for _, want := range []string{`"name":"flat"`, `"kind":"search"`, `"name":"batch","type":"int","min":1,"max":8`} {
		if !strings.Contains(ra.Describe(), want) {
			t.Errorf("%s lacks %s", ra.Describe(), want)
		}
	}
}

// TestFlat runs the plugin natively against a sort of all scores.
func TestFlat(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	random := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(rng.NormFloat64())
		}
		return v
	}
	const dim, tokens, heads = 8, 60, 6
	store := &ratest.Store{HeadDim: dim, Keys: [][]float32{random(tokens * dim), random(tokens * dim)}, Indexed: []ra.Range{{Lo: 4, Hi: 20}, {Lo: 22, Hi: 55}}}
	call := &ratest.Call{Store: store, Tokens: 3, Heads: heads, Queries: random(3 * heads * dim), TopK: 7}
	for batch := 1; batch <= ra.MaxQueries; batch++ {
		answer, err := ratest.Search(&flat{batch: batch}, call)
		if err != nil {
			t.Fatal(err)
		}
		for i, hits := range answer.Hits {
			keys := store.Keys[i%heads/3]
			score := func(id uint32) (s float32) {
				for j := range dim {
					s += keys[int(id)*dim+j] * call.Queries[i*dim+j]
				}
				return s
			}
			var all []uint32
			for _, r := range store.Indexed {
				for id := r.Lo; id < r.Hi; id++ {
					all = append(all, id)
				}
			}
			sort.Slice(all, func(a, b int) bool { return score(all[a]) > score(all[b]) })
			if !slices.Equal(hits.IDs, all[:call.TopK]) {
				t.Fatalf("batch %d, query %d: got %v, want %v", batch, i, hits.IDs, all[:call.TopK])
			}
		}
		if answer.KeysScored != 3*heads*49 {
			t.Fatalf("%d keys scored", answer.KeysScored)
		}
	}
}
