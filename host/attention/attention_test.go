package attention_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"go.uber.org/goleak"

	"github.com/retrievalattention/ra/host/attention"
	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// chosen is a strategy that returns fixed hits.
type chosen struct {
	retrieval.Strategy
	hits []retrieval.Hits
	err  error
}

func (c *chosen) Search(_ context.Context, call *retrieval.Call, res *retrieval.Result) error {
	res.Reset(call.Count())
	copy(res.Hits, c.hits)
	res.KeysScored = 17
	return c.err
}

// The merged output equals the softmax in f64 over the union of static and
// retrieved tokens and summaries, biases included, for any split of the tokens, empty sets
// and logits up to +-1e4 among them.
func TestStepIsTheSoftmaxOverTheUnion(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	backend := compute.NewCPU()
	for trial := range 120 {
		const dim = 8
		kvHeads, group, n := 1+r.IntN(3), 1<<r.IntN(4), 1+r.IntN(60)
		heads := kvHeads * group
		scale := []float64{1, 20, 1e4}[trial%3]
		c, err := kv.NewContext(kv.Geometry{Layers: 1, KVHeads: kvHeads, HeadDim: dim, DType: kernel.F32}, n, kv.NewAllocator(0))
		if err != nil {
			t.Fatal(err)
		}
		keys, values := map[[2]int][]float32{}, map[[2]int][]float32{}
		for h := range kvHeads {
			for p := range n {
				k, v := make([]float32, dim), make([]float32, dim)
				for i := range dim {
					k[i], v[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
				}
				c.Put(0, h, p, k, v)
				keys[[2]int{h, p}], values[[2]int{h, p}] = k, v
			}
		}
		c.Commit(n)
		queries := make([]float32, heads*dim)
		for i := range queries {
			queries[i] = float32(r.NormFloat64() * scale)
		}
		view := kv.NewView(c)
		for p := range n {
			view.Place(0, kv.Range{Lo: p, Hi: p + 1}, kv.State(r.IntN(3)))
		}
		if trial%10 == 0 { // nothing static
			view.Place(0, kv.Range{Lo: 0, Hi: n}, kv.Indexed)
		}
		hits := make([]retrieval.Hits, heads)
		for h := range hits {
			for p := range n {
				if view.State(0, p) == kv.Indexed && r.IntN(2) == 0 {
					hits[h].IDs = append(hits[h].IDs, uint32(p))
					hits[h].Bias = append(hits[h].Bias, float32(r.NormFloat64()))
				}
			}
			if h%2 == 0 {
				hits[h].Bias = nil
			}
			for range r.IntN(3) {
				value := make([]float32, dim)
				for i := range value {
					value[i] = float32(r.NormFloat64())
				}
				hits[h].Summaries.Add(float32(r.NormFloat64()*scale), float32(r.NormFloat64()*3), value)
			}
		}
		layer := attention.NewLayer(backend, &chosen{hits: hits}, n, heads, dim)
		out := make([]float32, heads*dim)
		for range 2 { // the second step reuses buffers
			stats, err := layer.Step(context.Background(), view, 0, n-1, queries, out)
			if err != nil {
				t.Fatal(err)
			}
			attended := 0
			for h := range heads {
				var logits []float64
				var rows [][]float32
				add := func(p int, bias float64) {
					var dot float64
					for i, k := range keys[[2]int{h / group, p}] {
						dot += float64(k) * float64(queries[h*dim+i])
					}
					logits = append(logits, dot/math.Sqrt(dim)+bias)
					rows = append(rows, values[[2]int{h / group, p}])
				}
				for p := range n {
					if view.State(0, p) == kv.Static {
						add(p, 0)
					}
				}
				for i, id := range hits[h].IDs {
					bias := 0.0
					if hits[h].Bias != nil {
						bias = float64(hits[h].Bias[i])
					}
					add(int(id), bias)
				}
				attended += len(logits)
				if view.Count(0, kv.Indexed) > 0 {
					for j, logit := range hits[h].Summaries.Logits {
						logits = append(logits, float64(logit)+float64(hits[h].Summaries.LogMults[j]))
						rows = append(rows, hits[h].Summaries.Values[j*dim:(j+1)*dim])
					}
				}
				want, lim := softmax(logits, rows, dim), 1e-4
				if scale == 1e4 {
					lim = 2e-2 // f32 logits of 1e4 are 1e-3 apart
				}
				for i, w := range want {
					if got := float64(out[h*dim+i]); math.Abs(got-w) > lim {
						t.Fatalf("trial %d head %d [%d]: %v, want %v", trial, h, i, got, w)
					}
				}
			}
			if stats.Attended != int64(attended) || stats.Context != int64(heads*n) {
				t.Fatalf("stats %+v, want %d of %d", stats, attended, heads*n)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func softmax(logits []float64, rows [][]float32, dim int) []float64 {
	out := make([]float64, dim)
	m := math.Inf(-1)
	for _, l := range logits {
		m = max(m, l)
	}
	var sum float64
	for i, l := range logits {
		w := math.Exp(l - m)
		sum += w
		for j, v := range rows[i] {
			out[j] += w * float64(v)
		}
	}
	for j := range out {
		if sum > 0 {
			out[j] /= sum
		}
	}
	return out
}

func TestErrors(t *testing.T) {
	backend := compute.NewCPU()
	c, err := kv.NewContext(kv.Geometry{Layers: 1, KVHeads: 1, HeadDim: 2}, 4, kv.NewAllocator(0))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Commit(4)
	view := kv.NewView(c)
	view.Place(0, kv.Range{Lo: 1, Hi: 3}, kv.Indexed)
	q, out := []float32{1, 2}, make([]float32, 2)
	boom := errors.New("boom")
	for _, x := range []struct {
		s    retrieval.Strategy
		want string
	}{
		{nil, "layer 0 has indexed tokens but no search strategy"},
		{&chosen{Strategy: retrieval.NewFlat(backend), err: boom}, "boom"},
		{&chosen{Strategy: retrieval.NewFlat(backend), hits: []retrieval.Hits{{IDs: []uint32{0}}}},
			"search flat, layer 0, step 3: invalid search result: query 0: id 0 is a static token, only indexed ones may be returned"},
	} {
		_, err := attention.NewLayer(backend, x.s, 5, 1, 2).Step(context.Background(), view, 0, 3, q, out)
		if fmt.Sprint(err) != x.want {
			t.Errorf("got %v, want %s", err, x.want)
		}
	}
	// Without a budget nothing is searched.
	if _, err := attention.NewLayer(backend, nil, 0, 1, 2).Step(context.Background(), view, 0, 3, q, out); err != nil {
		t.Error(err)
	}
}
