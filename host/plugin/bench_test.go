package plugin

import (
	"fmt"
	"testing"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/retrieval"
)

// BenchmarkEmptySearch is what a search call costs that does nothing in the
// guest: entering instances, checks, merging.
func BenchmarkEmptySearch(b *testing.B) {
	module := newGuest().module()
	call := newCall(small, 1, newView(b, small, 1))
	for _, instances := range []int{1, 2} {
		b.Run(fmt.Sprintf("instances=%d", instances), func(b *testing.B) {
			benchmark(b, load(b, Options{Bytes: module, Instances: instances}), call)
		})
	}
}

// BenchmarkFlat compares the plugin with the same search called natively, at
// 8 KV heads of 4 query heads, dimension 128, top 100.
func BenchmarkFlat(b *testing.B) {
	for _, n := range []int{8 << 10, 64 << 10} {
		g := geometry{layers: 1, kvHeads: 8, group: 4, dim: 128, dtype: kernel.BF16, tokens: []int{n}, sink: 128, window: 512, topK: 100}
		call := newCall(g, 1, newView(b, g, 1))
		for name, s := range map[string]retrieval.Strategy{
			"native":  retrieval.NewFlat(compute.NewCPU()),
			"fuel":    load(b, Options{Name: "flat"}),
			"trusted": load(b, Options{Name: "flat", Trusted: true}),
		} {
			b.Run(fmt.Sprintf("tokens=%d/%s", n, name), func(b *testing.B) { benchmark(b, s, call) })
		}
	}
}

func benchmark(b *testing.B, s retrieval.Strategy, call *retrieval.Call) {
	var res retrieval.Result
	search := func() {
		if err := s.Search(b.Context(), call, &res); err != nil {
			b.Fatal(err)
		}
	}
	search()
	b.ReportAllocs()
	for b.Loop() {
		search()
	}
}

// BenchmarkLoad is the start of the built-in plugin with a warm cache.
func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		load(b, Options{Name: "flat"}).Close()
	}
}
