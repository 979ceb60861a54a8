// Command go-sample is a search strategy in one file: it scores a sample of
// the keys, then all keys around the best of the sample, for neighbours in the
// sequence are often alike.
package main

import (
	"cmp"
	"slices"

	ra "github.com/retrievalattention/ra/sdk/go"
)

// sample keeps nothing but its parameters: the keys are all there is.
type sample struct {
	ra.NoIndex
	stride, best int
}

func init() {
	ra.Register(ra.Description{
		Name:    "go-sample",
		Version: "1.0.0",
		Doc:     "scores every stride-th key, then the keys around the best of them",
		Parameters: []ra.Parameter{
			{Name: "stride", Type: "int", Min: 1, Max: 1024, Default: 8, Doc: "every how many keys one is sampled"},
			{Name: "best", Type: "int", Min: 1, Max: 4096, Default: 64, Doc: "sampled keys whose neighbours are scored"},
		},
	}, &sample{})
}

func main() {}

// Configure takes the parameters.
func (s *sample) Configure(p ra.Params) error {
	s.stride, s.best = p.Int("stride"), p.Int("best")
	return nil
}

// Search answers each query of the call's KV heads.
func (s *sample) Search(c *ra.Call) error {
	for b := range c.Batches(1) {
		all := positions(c, b)
		sampled := c.Uint32s(len(all)/s.stride + 1)[:0]
		for i := 0; i < len(all); i += s.stride {
			sampled = append(sampled, uint32(i))
		}
		near := make([]bool, len(all))
		for _, i := range s.keepBest(c, b.First, sampled, all, s.best) {
			for p := max(0, int(i)-s.stride); p < len(all) && p <= int(i)+s.stride; p++ {
				near[p] = true
			}
		}
		around := c.Uint32s(len(all))[:0]
		for i, yes := range near {
			if yes {
				around = append(around, uint32(i))
			}
		}
		best := s.keepBest(c, b.First, around, all, c.TopK)
		for j, i := range best {
			best[j] = all[i]
		}
		ra.Emit(b.First, best, nil)
	}
	return nil
}

// positions lists the indexed positions of a batch's sequence.
func positions(c *ra.Call, b ra.Batch) []uint32 {
	info := ra.StoreInfo(b.Sequence, b.KVHead)
	ranges := make([]ra.Range, info.Ranges)
	ra.IndexedRanges(b.Sequence, b.KVHead, ranges)
	all := c.Uint32s(info.Indexed)[:0]
	for _, r := range ranges {
		for id := r.Lo; id < r.Hi; id++ {
			all = append(all, id)
		}
	}
	return all
}

// keepBest scores the keys at the given places of all and returns the places
// of the k best.
func (s *sample) keepBest(c *ra.Call, q ra.Query, places, all []uint32, k int) []uint32 {
	ids, scores := c.Uint32s(len(places)), c.Float32s(len(places))
	for j, i := range places {
		ids[j] = all[i]
	}
	const most = 1 << 16 // of one kernel call
	for lo := 0; lo < len(ids); lo += most {
		hi := min(lo+most, len(ids))
		ra.Score(q, 1, ids[lo:hi], scores[lo:hi])
	}
	order := c.Uint32s(len(places))
	for j := range order {
		order[j] = uint32(j)
	}
	slices.SortFunc(order, func(a, b uint32) int { return cmp.Compare(scores[b], scores[a]) })
	order = order[:min(k, len(order))]
	for j, o := range order {
		order[j] = places[o]
	}
	return order
}
