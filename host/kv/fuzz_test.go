package kv

import (
	"errors"
	"os"
	"testing"

	"github.com/retrievalattention/ra/host/kernel"
)

// plainContext is what a context must be the same as: the tag of each token,
// and the segments that it holds.
type plainContext struct {
	real *Context
	tags []byte
	segs []*plainSegment
	room int // tokens reserved in all
}

type plainSegment struct {
	bytes int64
	refs  int
}

// FuzzContexts makes contexts and index memory grow, fork and close in any
// order under a budget, and compares them with plain slices.
func FuzzContexts(f *testing.F) {
	f.Add([]byte{0, 10, 1, 200, 2, 0, 1, 7, 3, 1, 5, 0, 4, 9, 3, 0})
	f.Add([]byte{0, 255, 0, 255, 0, 255, 4, 255, 4, 255, 2, 0, 2, 1, 3, 0, 3, 0})
	f.Add([]byte{1, 200, 1, 200, 1, 200, 1, 200, 1, 200, 1, 200, 2, 0, 1, 3, 1, 131})
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 300 {
			return
		}
		g := Geometry{Layers: 1, KVHeads: 2, HeadDim: 4, DType: kernel.F32}
		const perToken, budget = 2 * 2 * 4 * 4, 600 << 10
		page := int64(os.Getpagesize())
		mem := NewAllocator(budget)
		var used int64
		var cs []*plainContext
		var blocks []*Region
		var sizes []int64

		// take is the model of the budget.
		take := func(n int64, err error) bool {
			n = (n + page - 1) / page * page
			if fits := used+n <= budget; fits != (err == nil) || err != nil && !errors.Is(err, ErrBudget) {
				t.Fatalf("%d bytes more, %d of %d used: %v", n, used, budget, err)
			}
			if err == nil {
				used += n
			}
			return err == nil
		}
		reserve := func(c *plainContext, n int) bool {
			err := c.real.Reserve(n)
			need := len(c.tags) + n - c.room
			if need <= 0 {
				if err != nil {
					t.Fatal(err)
				}
				return true
			}
			capacity := max(need, minSegment)
			if !take(int64(capacity)*perToken, err) {
				return false
			}
			c.room += capacity
			c.segs = append(c.segs, &plainSegment{(int64(capacity)*perToken + page - 1) / page * page, 1})
			return true
		}
		closeContext := func(i int) {
			c := cs[i]
			if err := c.real.Close(); err != nil {
				t.Fatal(err)
			}
			for _, s := range c.segs {
				if s.refs--; s.refs == 0 {
					used -= s.bytes
				}
			}
			cs = append(cs[:i], cs[i+1:]...)
		}
		for tag := byte(1); len(ops) >= 2; tag++ {
			op, arg := ops[0]%6, int(ops[1])
			ops = ops[2:]
			if op == 0 && len(cs) < 8 || len(cs) == 0 {
				c := &plainContext{}
				var err error
				if c.real, err = NewContext(g, 0, mem); err != nil {
					t.Fatal(err)
				}
				cs = append(cs, c)
			}
			i := arg % len(cs)
			c := cs[i]
			switch op {
			case 0:
				reserve(c, arg*8)
			case 1: // append
				n := arg * 3
				if !reserve(c, n) {
					break
				}
				rows := make([]float32, n*g.HeadDim)
				for j := range rows {
					rows[j] = float32(tag)
				}
				for h := range g.KVHeads {
					c.real.PutRows(0, h, len(c.tags), n, g.HeadDim, rows, rows)
				}
				c.real.Commit(n)
				for range n {
					c.tags = append(c.tags, tag)
				}
			case 2:
				if len(cs) == 8 {
					break
				}
				f := &plainContext{real: c.real.Fork(), tags: append([]byte(nil), c.tags...)}
				for s := range c.real.Segments(0, 0, 0, len(c.tags)) {
					f.room += s.Keys.N
					seg := c.segs[len(f.segs)]
					seg.refs++
					f.segs = append(f.segs, seg)
				}
				if f.room != len(f.tags) {
					t.Fatalf("a fork of %d tokens has segments of %d", len(f.tags), f.room)
				}
				cs = append(cs, f)
			case 3:
				closeContext(i)
			case 4: // index memory
				n := int64(arg)*300 + 1
				r, err := mem.Alloc(n, Index)
				if take(n, err) {
					blocks, sizes = append(blocks, r), append(sizes, (n+page-1)/page*page)
				}
			case 5:
				if len(blocks) > 0 {
					j := arg % len(blocks)
					if err := blocks[j].Release(); err != nil {
						t.Fatal(err)
					}
					used -= sizes[j]
					blocks, sizes = append(blocks[:j], blocks[j+1:]...), append(sizes[:j], sizes[j+1:]...)
				}
			}
			if mem.Used() != used {
				t.Fatalf("%d bytes accounted, want %d", mem.Used(), used)
			}
		}
		for len(cs) > 0 {
			c := cs[len(cs)-1]
			for h := range g.KVHeads {
				at := 0
				for s := range c.real.Segments(0, h, 0, len(c.tags)) {
					for j := range s.Keys.N {
						if k, v := s.Keys.F32[j*4], s.Values.F32[j*4+3]; s.Start+j != at || k != float32(c.tags[at]) || v != k {
							t.Fatalf("token %d at %d: key %v, value %v, want %d", at, s.Start+j, k, v, c.tags[at])
						}
						at++
					}
				}
				if at != len(c.tags) || c.real.Len() != at {
					t.Fatalf("%d tokens of %d", at, len(c.tags))
				}
			}
			closeContext(len(cs) - 1)
		}
		for _, r := range blocks {
			if err := r.Release(); err != nil {
				t.Fatal(err)
			}
		}
		if mem.Used() != 0 {
			t.Fatalf("%d bytes left", mem.Used())
		}
	})
}
