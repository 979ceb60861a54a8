// Command flat is exact search as a plugin: every indexed key is scored, each
// once for all the queries that share it.
package main

import ra "github.com/retrievalattention/ra/sdk/go"

// flat is stateless but for its parameter.
type flat struct {
	ra.NoIndex
	batch int // queries that share a pass over the keys
}

func init() {
	ra.Register(ra.Description{
		Name:    "flat",
		Version: "1.0.0",
		Doc:     "exact search: scores every indexed key",
		Parameters: []ra.Parameter{{
			Name: "batch", Type: "int", Min: 1, Max: ra.MaxQueries, Default: ra.MaxQueries,
			Doc: "queries that share one pass over the keys",
		}},
	}, &flat{})
}

func main() {}

// Configure takes the parameter.
func (f *flat) Configure(p ra.Params) error {
	f.batch = p.Int("batch")
	return nil
}

// Search scans all indexed positions and emits the best of each query.
func (f *flat) Search(c *ra.Call) error {
	k := c.TopK
	ids, counts := c.Uint32s(f.batch*k), c.Uint32s(f.batch)
	for b := range c.Batches(f.batch) {
		ra.TopKRange(b.First, b.N, 0, ra.End, k, ids, nil, counts)
		for j := range b.N {
			ra.Emit(b.At(j), ids[j*k:][:counts[j]], nil)
		}
	}
	return nil
}
