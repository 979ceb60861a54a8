// Command go-process-flat is exact search as a process of its own: every
// indexed key is scored.
package main

import (
	"container/heap"
	"context"
	"sync"

	"github.com/retrievalattention/ra/sdk/process"
)

type flat struct{ process.NoIndex }

func main() {
	process.Serve(process.Description{
		Name: "go-process-flat", Version: "1.0.0", Doc: "exact search in a Go process", Features: []string{"keys"},
	}, flat{})
}

// Search scans the keys of each KV head once, for all the queries that share
// it, the heads side by side.
func (flat) Search(_ context.Context, c *process.Call) error {
	byHead := map[[2]int][]int{} // queries of a sequence and KV head
	for i := range c.Count() {
		key := [2]int{i / (c.Tokens * c.Heads), c.KVHead(i)}
		byHead[key] = append(byHead[key], i)
	}
	var wg sync.WaitGroup
	for key, queries := range byHead {
		wg.Go(func() { scan(c, c.Sequences[key[0]], key[1], queries) })
	}
	wg.Wait()
	return nil
}

func scan(c *process.Call, s *process.Sequence, head int, queries []int) {
	best := make([]hits, len(queries))
	key := make([]float32, s.HeadDim)
	for start, rows := range s.IndexedKeys(head) {
		for i := range rows.N {
			rows.Row(i, key)
			for j, q := range queries {
				best[j].add(uint32(start+i), dot(c.Query(q), key), c.TopK)
			}
		}
	}
	for j, q := range queries {
		c.Emit(q, best[j].ids(), nil)
	}
}

func dot(a, b []float32) float32 {
	var sum float32
	for i, x := range a {
		sum += x * b[i]
	}
	return sum
}

// hits are the k best so far, the worst of them first.
type hits []hit

type hit struct {
	id    uint32
	score float32
}

func (h hits) Len() int           { return len(h) }
func (h hits) Less(i, j int) bool { return h[i].score < h[j].score }
func (h hits) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *hits) Push(x any)        { *h = append(*h, x.(hit)) }
func (h *hits) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func (h *hits) add(id uint32, score float32, k int) {
	switch {
	case len(*h) < k:
		heap.Push(h, hit{id, score})
	case k > 0 && score > (*h)[0].score:
		(*h)[0] = hit{id, score}
		heap.Fix(h, 0)
	}
}

func (h hits) ids() []uint32 {
	ids := make([]uint32, len(h))
	for i, x := range h {
		ids[i] = x.id
	}
	return ids
}
