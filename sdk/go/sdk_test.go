package ra

import (
	"encoding/json"
	"math"
	"testing"
)

func TestDescriptionIsJSON(t *testing.T) {
	d := Description{Name: "x", Version: "1", Doc: "a \"quoted\"\n\\ line – ü", Parameters: []Parameter{
		{Name: "i", Type: "int", Min: -1, Max: 10, Default: 3, Doc: "count"},
		{Name: "f", Type: "float", Default: 0.25},
		{Name: "b", Type: "bool", Default: true},
		{Name: "s", Type: "string", Values: []string{"a", "b"}, Default: "a"},
	}}
	var got map[string]any
	if err := json.Unmarshal([]byte(d.JSON()), &got); err != nil {
		t.Fatalf("%v in %s", err, d.JSON())
	}
	if got["doc"] != d.Doc || got["kind"] != "search" {
		t.Errorf("got %v", got)
	}
	ps := got["parameters"].([]any)
	for i, want := range []any{3.0, 0.25, true, "a"} {
		if p := ps[i].(map[string]any); p["default"] != want {
			t.Errorf("parameter %d: default %v, want %v", i, p["default"], want)
		}
	}
	if p := ps[0].(map[string]any); p["min"] != -1.0 || p["max"] != 10.0 {
		t.Errorf("got %v", p)
	}
	if p := ps[1].(map[string]any); p["min"] != nil {
		t.Errorf("got %v", p)
	}
}

func TestParams(t *testing.T) {
	p := ParseParams("n=-3\nx=1e-05\non=true\nmode=a=b\nempty=\n")
	if p.Int("n") != -3 || p.Float("x") != 1e-5 || p.Float("n") != -3 || !p.Bool("on") || p.String("mode") != "a=b" || p.String("empty") != "" {
		t.Error("a parameter was misread")
	}
	defer func() {
		if recover() == nil {
			t.Error("an undeclared parameter did not panic")
		}
	}()
	p.Int("m")
}

// TestBatches: every query of the call's heads is in exactly one batch, in
// the KV head's order.
func TestBatches(t *testing.T) {
	for _, c := range []Call{
		{Sequences: 1, Tokens: 1, Heads: 8, FirstKVHead: 0, KVHeads: 2, Group: 4},
		{Sequences: 2, Tokens: 5, Heads: 9, FirstKVHead: 1, KVHeads: 2, Group: 3},
		{Sequences: 1, Tokens: 3, Heads: 24, FirstKVHead: 1, KVHeads: 1, Group: 12},
		{Sequences: 1, Tokens: 7, Heads: 2, FirstKVHead: 0, KVHeads: 2, Group: 1},
	} {
		for limit := range MaxQueries + 2 {
			seen := map[Query]int{}
			for b := range c.Batches(limit) {
				if b.N < 1 || b.N > MaxQueries || limit > 0 && b.N > limit {
					t.Fatalf("a batch of %d", b.N)
				}
				last := -1
				for j := range b.N {
					q := int(b.At(j))
					seen[b.At(j)]++
					s, token, head := q/(c.Tokens*c.Heads), q/c.Heads%c.Tokens, q%c.Heads
					if s != b.Sequence || head/c.Group != b.KVHead {
						t.Fatalf("query %d in the batch of sequence %d and KV head %d", q, b.Sequence, b.KVHead)
					}
					if order := token*c.Group + head%c.Group; last >= 0 && order != last+1 {
						t.Fatalf("query %d is out of order", q)
					} else {
						last = order
					}
				}
			}
			if want := c.Sequences * c.Tokens * c.KVHeads * c.Group; len(seen) != want {
				t.Fatalf("%d queries in batches, want %d", len(seen), want)
			}
			for q, n := range seen {
				if n != 1 {
					t.Fatalf("query %d came %d times", q, n)
				}
			}
		}
	}
}

func TestArenaStopsAllocating(t *testing.T) {
	var a arena[uint32]
	use := func() {
		a.reset()
		x, y := a.take(100), a.take(50)
		if len(x) != 100 || len(y) != 50 {
			t.Fatal("wrong length")
		}
		x[99], y[0] = 1, 2
		if x[99] != 1 {
			t.Fatal("slices overlap")
		}
	}
	use()
	use()
	if n := testing.AllocsPerRun(10, use); n != 0 {
		t.Errorf("%v allocations in a warm round", n)
	}
}

func TestShortSlicesPanic(t *testing.T) {
	for name, f := range map[string]func(){
		"score": func() { Score(0, 2, make([]uint32, 3), make([]float32, 5)) },
		"range": func() { ScoreRange(0, 1, 0, 3, make([]float32, 2)) },
		"topk":  func() { TopKRange(0, 2, 0, math.MaxUint32, 3, make([]uint32, 5), nil, make([]uint32, 2)) },
		"emit":  func() { Emit(0, make([]uint32, 2), make([]float32, 1)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}
