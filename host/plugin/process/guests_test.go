package process

import (
	"context"
	"fmt"
	"os"
	"slices"

	ra "github.com/retrievalattention/ra/sdk/go"
	sdk "github.com/retrievalattention/ra/sdk/process"
)

// runAs makes this process what the mode says.
func runAs(mode string) {
	switch mode {
	case "flat":
		sdk.Serve(describe("flat", "keys"), flat{})
	default:
		fmt.Fprintln(os.Stderr, "unknown mode", mode)
		os.Exit(3)
	}
}

func describe(name string, features ...string) sdk.Description {
	return sdk.Description{Name: name, Version: "1.0.0", Features: features}
}

// flat is exact search.
type flat struct{ sdk.NoIndex }

func (flat) Search(_ context.Context, c *sdk.Call) error {
	key := make([]float32, c.Sequences[0].HeadDim)
	for i := range c.Count() {
		type scored struct {
			id    uint32
			score float64
		}
		var all []scored
		q := c.Query(i)
		for start, rows := range c.Sequence(i).IndexedKeys(c.KVHead(i)) {
			for j := range rows.N {
				rows.Row(j, key)
				s := 0.0
				for d, x := range key {
					s += float64(x) * float64(q[d])
				}
				all = append(all, scored{uint32(start + j), s})
			}
		}
		slices.SortFunc(all, func(a, b scored) int {
			if a.score > b.score {
				return -1
			}
			return 1
		})
		var ids []uint32
		for _, s := range all[:min(c.TopK, len(all))] {
			ids = append(ids, s.id)
		}
		c.Emit(i, ids, nil)
	}
	return nil
}

var _ = ra.Params{}
