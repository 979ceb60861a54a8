// Command go-process-sample is a search strategy in one file, run as a process
// of its own: it scores a sample of the keys, then all keys around the best of
// the sample, for neighbours in the sequence are often alike.
package main

import (
	"cmp"
	"context"
	"slices"

	ra "github.com/retrievalattention/ra/sdk/go"
	"github.com/retrievalattention/ra/sdk/process"
)

// sample keeps nothing but its parameters: the keys are all there is.
type sample struct {
	process.NoIndex
	stride, best int
}

func main() {
	process.Serve(process.Description{
		Name:     "go-process-sample",
		Version:  "1.0.0",
		Doc:      "scores every stride-th key, then the keys around the best of them",
		Features: []string{"keys"},
		Parameters: []ra.Parameter{
			{Name: "stride", Type: "int", Min: 1, Max: 1024, Default: 8, Doc: "every how many keys one is sampled"},
			{Name: "best", Type: "int", Min: 1, Max: 4096, Default: 64, Doc: "sampled keys whose neighbours are scored"},
		},
	}, &sample{})
}

// Configure takes the parameters.
func (s *sample) Configure(p ra.Params, _ uint64) error {
	s.stride, s.best = p.Int("stride"), p.Int("best")
	return nil
}

// Search answers the queries one after the other.
func (s *sample) Search(_ context.Context, c *process.Call) error {
	scored := 0
	for i := range c.Count() {
		k := keys{query: c.Query(i), row: make([]float32, len(c.Query(i)))}
		for start, rows := range c.Sequence(i).IndexedKeys(c.KVHead(i)) {
			for r := range rows.N {
				k.all = append(k.all, place{rows, r, uint32(start + r)})
			}
		}
		var sampled, around []int
		for p := 0; p < len(k.all); p += s.stride {
			sampled = append(sampled, p)
		}
		near := make([]bool, len(k.all))
		for _, b := range k.keepBest(sampled, s.best) {
			for p := max(0, b-s.stride); p < len(near) && p <= b+s.stride; p++ {
				near[p] = true
			}
		}
		for p, yes := range near {
			if yes {
				around = append(around, p)
			}
		}
		var ids []uint32
		for _, b := range k.keepBest(around, c.TopK) {
			ids = append(ids, k.all[b].id)
		}
		c.Emit(i, ids, nil)
		scored += len(sampled) + len(around)
	}
	c.Scored(int64(scored))
	return nil
}

// keys are what one query searches.
type keys struct {
	query, row []float32
	all        []place
}

// place is where one indexed key lies.
type place struct {
	rows process.Rows
	row  int
	id   uint32
}

// keepBest scores the keys at the given places of all and returns the places
// of the n best.
func (k *keys) keepBest(places []int, n int) []int {
	scores := make(map[int]float32, len(places))
	for _, p := range places {
		k.all[p].rows.Row(k.all[p].row, k.row)
		var sum float32
		for i, x := range k.row {
			sum += x * k.query[i]
		}
		scores[p] = sum
	}
	best := slices.Clone(places)
	slices.SortStableFunc(best, func(a, b int) int { return cmp.Compare(scores[b], scores[a]) })
	return best[:min(n, len(best))]
}
