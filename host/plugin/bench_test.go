package plugin

import (
	"fmt"
	"testing"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	asm "github.com/retrievalattention/ra/host/plugin/internal/wasmasm"
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

// BenchmarkHostCall is the cost of one crossing with its checks: queries_info
// and score of no ids, a thousand of them a search.
func BenchmarkHostCall(b *testing.B) {
	call := newCall(small, 1, newView(b, small, 1))
	for name, args := range map[string][]int32{"queries_info": {atOut, 32}, "score": {0, 2, atIDs, 0, atOut}} {
		g := newGuest(name)
		code := g.call(name, args...)
		if name == "queries_info" {
			code = append(code, drop...)
		}
		g.search(asm.I32Const(1000), asm.Op(0x21, 0), []byte{0x03, 0x40}, code, // loop
			asm.Op(0x20, 0), asm.I32Const(1), asm.Op(0x6b), asm.Op(0x22, 0), asm.Op(0x0d, 0), []byte{0x0b})
		p := load(b, Options{Bytes: g.module(), Instances: 1})
		b.Run(name, func(b *testing.B) {
			benchmark(b, p, call)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/call")
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
	load(b, Options{Name: "flat"}).Close()
	for b.Loop() {
		load(b, Options{Name: "flat"}).Close()
	}
}
