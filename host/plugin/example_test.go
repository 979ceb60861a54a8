package plugin_test

import (
	"context"
	"fmt"
	"log"

	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/plugin"
	"github.com/retrievalattention/ra/host/retrieval"
)

// Load a built-in plugin and search one layer of a context.
func ExampleLoad() {
	ctx := context.Background()
	p, err := plugin.Load(ctx, plugin.Options{
		Name:      "flat",
		Params:    map[string]any{"batch": 4},
		OnFailure: plugin.Fallback,
		CacheDir:  plugin.TestCacheDir, // left out for the user's cache
	})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()

	// Ten tokens whose keys point more and more in the query's direction.
	kvc, err := kv.NewContext(kv.Geometry{Layers: 1, KVHeads: 1, HeadDim: 2, DType: kernel.F32}, 10, kv.NewAllocator(0))
	if err != nil {
		log.Fatal(err)
	}
	defer kvc.Close()
	for i := range 10 {
		kvc.Put(0, 0, i, []float32{float32(i), 1}, []float32{0, 0})
	}
	kvc.Commit(10)
	view := kv.NewView(kvc)
	view.Place(0, kv.Range{Lo: 0, Hi: 8}, kv.Indexed) // the last two are static

	if err := p.Build(ctx, &retrieval.Build{View: view, Layer: 0, Heads: 1}); err != nil {
		log.Fatal(err)
	}
	var res retrieval.Result
	call := &retrieval.Call{Views: []*kv.View{view}, Tokens: 1, Heads: 1, Queries: []float32{1, 0}, TopK: 3}
	if err := p.Search(ctx, call, &res); err != nil {
		log.Fatal(err)
	}
	fmt.Println(p.Info().Name, res.Hits[0].IDs, res.KeysScored)
	// Output: flat [7 6 5] 8
}
