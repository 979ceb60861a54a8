package conformance

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/plugin"
	"github.com/retrievalattention/ra/host/retrieval"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newFlat() retrieval.Strategy { return retrieval.NewFlat(compute.NewCPU()) }

func TestFlatConforms(t *testing.T) {
	Test(t, Options{New: func(context.Context) (retrieval.Strategy, error) { return newFlat(), nil }, MinRecall: 1})
}

// TestWasmFlatConforms runs the suite on the shipped module.
func TestWasmFlatConforms(t *testing.T) {
	cache := t.TempDir()
	Test(t, Options{
		New: func(ctx context.Context) (retrieval.Strategy, error) {
			return plugin.Load(ctx, plugin.Options{Name: "flat", CacheDir: cache})
		},
		Memory: func(s retrieval.Strategy) int64 { return s.(*plugin.Plugin).Stats().MemoryBytes }, MinRecall: 1,
	})
}

// broken is flat with one part replaced.
type broken struct {
	retrieval.Strategy
	info   func() retrieval.Info
	after  func(call *retrieval.Call, res *retrieval.Result) // changes an answer
	search func(ctx context.Context, call *retrieval.Call, res *retrieval.Result) error
	append func(view *kv.View, layer int, r kv.Range) error
	bytes  atomic.Int64
}

func (b *broken) Info() retrieval.Info {
	if b.info != nil {
		return b.info()
	}
	return b.Strategy.Info()
}

func (b *broken) Append(ctx context.Context, view *kv.View, layer int, r kv.Range) error {
	if b.append != nil {
		return b.append(view, layer, r)
	}
	return b.Strategy.Append(ctx, view, layer, r)
}

func (b *broken) Search(ctx context.Context, call *retrieval.Call, res *retrieval.Result) error {
	if b.search != nil {
		return b.search(ctx, call, res)
	}
	err := b.Strategy.Search(ctx, call, res)
	if err == nil && b.after != nil {
		b.after(call, res)
	}
	return err
}

// TestBrokenStrategies: each strategy that breaks one rule fails the check of
// that rule, for that reason.
func TestBrokenStrategies(t *testing.T) {
	ids := func(f func(call *retrieval.Call, i int, h *retrieval.Hits)) func(*broken) {
		return func(b *broken) {
			b.after = func(call *retrieval.Call, res *retrieval.Result) {
				for i := range res.Hits {
					f(call, i, &res.Hits[i])
				}
			}
		}
	}
	for name, c := range map[string]struct {
		breakIt func(*broken)
		check   string // that fails
		reason  string
	}{
		"nameless":       {func(b *broken) { b.info = func() retrieval.Info { return retrieval.Info{} } }, "identity", "it describes itself as"},
		"static token":   {ids(func(_ *retrieval.Call, _ int, h *retrieval.Hits) { h.IDs = append(h.IDs[:0], 0) }), "recall", "id 0 is a static token"},
		"beyond the end": {ids(func(c *retrieval.Call, _ int, h *retrieval.Hits) { h.IDs = append(h.IDs[:0], uint32(c.Views[0].Len())) }), "best", "is out of range"},
		"twice":          {ids(func(_ *retrieval.Call, _ int, h *retrieval.Hits) { copy(h.IDs[1:2], h.IDs[:1]) }), "duplicates", "was returned twice"},
		"too many": {ids(func(c *retrieval.Call, _ int, h *retrieval.Hits) {
			h.IDs = append(h.IDs, h.IDs...)
			h.IDs = append(h.IDs, 20)
		}), "top-0", "hits, at most 0 were asked for"},
		"bias NaN": {ids(func(_ *retrieval.Call, _ int, h *retrieval.Hits) {
			h.Bias = make([]float32, len(h.IDs))
			if len(h.Bias) > 0 {
				h.Bias[0] = float32(math.NaN())
			}
		}), "shapes", "the bias of id"},
		"misses the best": {ids(func(_ *retrieval.Call, _ int, h *retrieval.Hits) { h.IDs = h.IDs[min(1, len(h.IDs)):] }), "best", "token 333 is far the best and not among the hits"},
		"finds half":      {ids(func(_ *retrieval.Call, _ int, h *retrieval.Hits) { h.IDs = h.IDs[:len(h.IDs)/2] }), "recall", "0.500 of the exact top-20 found, want 1.000"},
		"gives up early":  {ids(func(_ *retrieval.Call, _ int, h *retrieval.Hits) { h.IDs = h.IDs[:min(len(h.IDs), 5)] }), "few-keys", "7 keys: query 0 has 5 hits"},
		"drops ties": {ids(func(c *retrieval.Call, _ int, h *retrieval.Hits) {
			if len(h.IDs) == 20 && h.IDs[19]-h.IDs[0] == 19 {
				h.IDs = h.IDs[:1]
			}
		}), "duplicates", "1 distinct keys: query 0 has 1 hits"},
		"NaN sorts first": {func(b *broken) {
			b.after = func(c *retrieval.Call, res *retrieval.Result) {
				for i := range res.Hits {
					for p := 17; p < usual.tokens-usual.window; p++ {
						for s := range c.View(i).Context().Segments(layer, c.KVHead(i), p, p+1) {
							k := make([]float32, c.Dim())
							if s.Keys.Widen(0, k); slices.ContainsFunc(k, func(v float32) bool { return v != v }) {
								res.Hits[i].IDs = append(res.Hits[i].IDs[:0], uint32(p))
							}
						}
					}
				}
			}
		}, "not-finite", "token 400 is far the best and not among the hits"},
		"fails on NaN": {func(b *broken) {
			b.search = func(ctx context.Context, call *retrieval.Call, res *retrieval.Result) error {
				if slices.ContainsFunc(call.Queries, func(v float32) bool { return v != v }) {
					return errors.New("NaN in a query")
				}
				return b.Strategy.Search(ctx, call, res)
			}
		}, "not-finite", "query with NaN: search: NaN in a query"},
		"forgets appended": {func(b *broken) {
			b.after = func(c *retrieval.Call, res *retrieval.Result) {
				for i := range res.Hits {
					res.Hits[i].IDs = slices.DeleteFunc(res.Hits[i].IDs, func(id uint32) bool { return id >= uint32(usual.tokens-usual.window) })
				}
			}
		}, "append", "after append 0: query 0: token 732 is far the best"},
		"append fails": {func(b *broken) {
			b.append = func(*kv.View, int, kv.Range) error { return errors.New("full") }
		}, "append", "append 0: full"},
		"mixes forks": {func(b *broken) {
			var last atomic.Int64
			b.append = func(_ *kv.View, _ int, r kv.Range) error { last.Store(int64(r.Hi - 1)); return nil }
			b.after = func(_ *retrieval.Call, res *retrieval.Result) {
				if n := last.Load(); n > 0 && len(res.Hits[0].IDs) > 0 && !slices.Contains(res.Hits[0].IDs, uint32(n)) {
					res.Hits[0].IDs[len(res.Hits[0].IDs)-1] = uint32(n)
				}
			}
		}, "forks", "id"},
		"moody": {func(b *broken) {
			var n atomic.Int64
			b.after = func(_ *retrieval.Call, res *retrieval.Result) {
				res.Hits[0].IDs = res.Hits[0].IDs[:len(res.Hits[0].IDs)-int(n.Add(1)%3/2)]
			}
		}, "determinism", "the same call again: query 0"},
		"one at a time": {func(b *broken) {
			var busy sync.Mutex
			b.search = func(ctx context.Context, call *retrieval.Call, res *retrieval.Result) error {
				if !busy.TryLock() {
					return errors.New("called while it searches")
				}
				defer busy.Unlock()
				return b.Strategy.Search(ctx, call, res)
			}
			b.append = func(*kv.View, int, kv.Range) error {
				if !busy.TryLock() {
					return errors.New("called while it searches")
				}
				busy.Unlock()
				return nil
			}
		}, "concurrency", "called while it searches"},
		"odd after cancelling": {func(b *broken) {
			b.search = func(ctx context.Context, call *retrieval.Call, res *retrieval.Result) error {
				if ctx.Err() != nil {
					return errors.New("interrupted system call")
				}
				return b.Strategy.Search(ctx, call, res)
			}
		}, "cancellation", "a cancelled search returned interrupted system call"},
		"leaks": {func(b *broken) {
			b.after = func(*retrieval.Call, *retrieval.Result) { b.bytes.Add(100) }
		}, "growth", "bytes after"},
		"panics": {func(b *broken) {
			b.after = func(*retrieval.Call, *retrieval.Result) { panic("out of ideas") }
		}, "recall", "it panicked: out of ideas"},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{
				New: func(context.Context) (retrieval.Strategy, error) {
					b := &broken{Strategy: newFlat()}
					c.breakIt(b)
					return b, nil
				},
				MinRecall: 1, Calls: 200,
				Memory: func(s retrieval.Strategy) int64 { return s.(*broken).bytes.Load() },
			}
			o.complete()
			i := slices.IndexFunc(Checks(), func(k Check) bool { return k.Name == c.check })
			res, _ := runCheck(t.Context(), Checks()[i], &o)
			if res.Passed || !strings.Contains(res.Failure, c.reason) {
				t.Errorf("%s: passed %v, failure %q, want %q", c.check, res.Passed, res.Failure, c.reason)
			}
		})
	}
}

func TestReport(t *testing.T) {
	r, err := Run(t.Context(), Options{New: func(context.Context) (retrieval.Strategy, error) {
		return &broken{Strategy: newFlat(), after: func(c *retrieval.Call, res *retrieval.Result) { res.Hits[0].IDs = nil }}, nil
	}, MinRecall: 1})
	if err != nil {
		t.Fatal(err)
	}
	if r.Passed() || len(r.Results) != len(Checks()) || r.Plugin.Name != "flat" {
		t.Fatalf("%+v", r)
	}
	var b bytes.Buffer
	if err := r.WriteJUnit(&b); err != nil {
		t.Fatal(err)
	}
	var suite struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Cases    []struct {
			Name    string    `xml:"name,attr"`
			Failure *struct{} `xml:"failure"`
			Skipped *struct{} `xml:"skipped"`
		} `xml:"testcase"`
	}
	if err := xml.Unmarshal(b.Bytes(), &suite); err != nil {
		t.Fatalf("%v in %s", err, b.String())
	}
	failures, skipped := 0, 0
	for _, c := range suite.Cases {
		if c.Failure != nil {
			failures++
		}
		if c.Skipped != nil {
			skipped++
		}
	}
	if suite.Tests != len(Checks()) || failures != r.Failed() || failures != suite.Failures || skipped != 1 {
		t.Errorf("%+v", suite)
	}
	if _, err := Run(cancelled(t), Options{New: func(context.Context) (retrieval.Strategy, error) { return newFlat(), nil }}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled run: %v", err)
	}
}

func cancelled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
