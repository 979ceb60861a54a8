package process

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/plugin"
	"github.com/retrievalattention/ra/host/retrieval"
)

// pluginEnv makes the test binary a plugin, or a host to be killed.
const pluginEnv = "RA_TEST_PLUGIN"

func TestMain(m *testing.M) {
	if mode := os.Getenv(pluginEnv); mode != "" {
		runAs(mode)
		return
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			code = 1
		}
	}
	os.Exit(code)
}

// memory returns a shared allocator.
func memory(t testing.TB) *kv.Allocator {
	t.Helper()
	a, err := kv.NewSharedAllocator(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// filled returns a context of n random tokens.
func filled(t testing.TB, a *kv.Allocator, r *rand.Rand, g kv.Geometry, n int) *kv.Context {
	t.Helper()
	c, err := kv.NewContext(g, 0, a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	grow(t, r, c, n)
	return c
}

func grow(t testing.TB, r *rand.Rand, c *kv.Context, n int) {
	t.Helper()
	if err := c.Reserve(n); err != nil {
		t.Fatal(err)
	}
	g := c.Geometry()
	for l := range g.Layers {
		for h := range g.KVHeads {
			for p := c.Len(); p < c.Len()+n; p++ {
				c.Put(l, h, p, vector(r, g.HeadDim), vector(r, g.HeadDim))
			}
		}
	}
	c.Commit(n)
}

func vector(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// indexed returns a view with all but the first and last tokens indexed.
func indexed(c *kv.Context) *kv.View {
	v := kv.NewView(c)
	for l := range c.Geometry().Layers {
		v.Place(l, kv.Range{Lo: 2, Hi: c.Len() - 3}, kv.Indexed)
	}
	return v
}

// newCall returns a search of random queries over the views.
func newCall(r *rand.Rand, layer, tokens, heads, k int, views ...*kv.View) *retrieval.Call {
	c := &retrieval.Call{Views: views, Layer: layer, Tokens: tokens, Heads: heads, TopK: k}
	c.Queries = vector(r, c.Count()*c.Dim())
	return c
}

// exact returns the right answer.
func exact(t testing.TB, call *retrieval.Call) [][]uint32 {
	t.Helper()
	var res retrieval.Result
	if err := retrieval.NewFlat(compute.NewCPU()).Search(context.Background(), call, &res); err != nil {
		t.Fatal(err)
	}
	return sorted(&res)
}

func sorted(res *retrieval.Result) [][]uint32 {
	var out [][]uint32
	for _, h := range res.Hits {
		out = append(out, slices.Sorted(slices.Values(h.IDs)))
	}
	return out
}

// search answers by the plugin and compares with exact search.
func search(t testing.TB, p *Plugin, call *retrieval.Call) {
	t.Helper()
	var res retrieval.Result
	if err := p.Search(context.Background(), call, &res); err != nil {
		t.Fatal(err)
	}
	if want := exact(t, call); !slices.EqualFunc(sorted(&res), want, slices.Equal) {
		t.Errorf("the answer differs from exact search:\n%v\n%v", sorted(&res), want)
	}
}

// options run the test binary as a plugin.
func options(t testing.TB, a *kv.Allocator, mode string) Options {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Name: "mine", Path: exe, Env: map[string]string{pluginEnv: mode, "GORACE": "atexit_sleep_ms=0"}, Grants: []string{"keys"},
		Memory: a, Logger: slog.New(slog.DiscardHandler), OnFailure: plugin.Fail,
	}
}

func load(t testing.TB, o Options) *Plugin {
	t.Helper()
	p, err := Load(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// logs collects what is logged.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func wantText(t testing.TB, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v, want %q in it", err, part)
		}
	}
}

// A process answers as native exact search does, for every element type,
// several segments, forks, sequences and tokens.
func TestFlat(t *testing.T) {
	a := memory(t)
	p := load(t, options(t, a, "flat"))
	for _, dtype := range []kernel.DType{kernel.F32, kernel.BF16, kernel.F16} {
		for _, c := range []struct{ kvHeads, group, tokens, n, k int }{{2, 1, 1, 50, 3}, {2, 4, 1, 700, 10}, {1, 2, 3, 90, 90}} {
			t.Run(fmt.Sprintf("%v %+v", dtype, c), func(t *testing.T) {
				r := rand.New(rand.NewPCG(1, uint64(c.n)))
				base := filled(t, a, r, kv.Geometry{Layers: 2, KVHeads: c.kvHeads, HeadDim: 16, DType: dtype}, c.n)
				var views []*kv.View
				for range 2 {
					fork := base.Fork()
					t.Cleanup(func() { fork.Close() })
					grow(t, r, fork, 40)
					v := indexed(fork)
					v.Place(1, kv.Range{Lo: 20, Hi: 25}, kv.Dropped)
					views = append(views, v)
				}
				for layer := range 2 {
					for _, v := range views {
						if err := p.Build(context.Background(), &retrieval.Build{View: v, Layer: layer, Heads: c.kvHeads * c.group}); err != nil {
							t.Fatal(err)
						}
					}
					search(t, p, newCall(r, layer, c.tokens, c.kvHeads*c.group, c.k, views...))
				}
			})
		}
	}
	if info := p.Info(); info.Name != "flat" || info.Runtime != "process" || !strings.HasPrefix(info.Digest, "sha256:") {
		t.Errorf("info %+v", info)
	}
	if s := p.Stats(); s.Searches != 18 || s.Failures != 0 || s.Fallbacks != 0 || s.Instances != 1 {
		t.Errorf("stats %+v", s)
	}
}
