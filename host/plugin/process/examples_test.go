package process

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/plugin"
	"github.com/retrievalattention/ra/host/retrieval"
	"github.com/retrievalattention/ra/sdk/conformance"
)

const root = "../../.."

// python returns the interpreter of a virtual environment with the SDK and
// the given requirements, made at the first use and kept in .cache. It skips
// the test where there is no Python or no package registry.
func python(t testing.TB, requirements ...string) string {
	t.Helper()
	system, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3, which is not installed")
	}
	project, err := os.ReadFile(filepath.Join(root, "sdk/python/pyproject.toml"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(string(project) + strings.Join(requirements, " ")))
	venv, err := filepath.Abs(filepath.Join(root, ".cache", "python-"+hex.EncodeToString(sum[:6])))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(venv), 0o755); err != nil {
		t.Fatal(err)
	}
	// Packages are tested at the same time.
	lock, err := os.OpenFile(venv+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	interpreter := filepath.Join(venv, "bin", "python")
	ready := filepath.Join(venv, "ready")
	if _, err := os.Stat(ready); err == nil {
		return interpreter
	}
	if out, err := exec.Command(system, "-m", "venv", "--clear", venv).CombinedOutput(); err != nil {
		t.Skipf("needs python3 with venv: %v: %s", err, clip(string(out), 300))
	}
	args := append([]string{"-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", filepath.Join(root, "sdk/python")}, requirements...)
	if out, err := exec.Command(interpreter, args...).CombinedOutput(); err != nil {
		t.Skipf("needs a Python package registry: %v: %s", err, clip(string(out), 300))
	}
	if err := os.WriteFile(ready, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return interpreter
}

// script runs a Python plugin.
func script(t testing.TB, a *kv.Allocator, path, interpreter string) Options {
	return Options{
		Name: "python", Path: path, Interpreter: interpreter, Grants: []string{"keys"},
		Memory: a, Logger: slog.New(slog.DiscardHandler), OnFailure: plugin.Fail,
	}
}

// The plugins of examples/plugins that search exactly do, for every element
// type, several segments, forks and sequences.
func TestExactExamples(t *testing.T) {
	build := func(t *testing.T) string {
		exe := filepath.Join(t.TempDir(), "plugin")
		cmd := exec.Command("go", "build", "-o", exe, ".")
		cmd.Dir = filepath.Join(root, "examples/plugins/go-process-flat")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return exe
	}
	for name, opts := range map[string]func(t *testing.T, a *kv.Allocator) Options{
		"python-flat": func(t *testing.T, a *kv.Allocator) Options {
			return script(t, a, filepath.Join(root, "examples/plugins/python-flat/plugin.py"), python(t))
		},
		"go-process-flat": func(t *testing.T, a *kv.Allocator) Options { return script(t, a, build(t), "") },
	} {
		t.Run(name, func(t *testing.T) {
			a := memory(t)
			o := opts(t, a)
			if !testing.Short() {
				conformance.Test(t, conformance.Options{
					New:       func(ctx context.Context) (retrieval.Strategy, error) { return Load(ctx, o) },
					MinRecall: 1, Calls: 200, Allocator: a,
				})
			}
			p := load(t, o)
			if p.Info().Name != name {
				t.Errorf("it is called %s", p.Info().Name)
			}
			for _, dtype := range []kernel.DType{kernel.F32, kernel.BF16, kernel.F16} {
				r := rand.New(rand.NewPCG(9, uint64(dtype)))
				base := filled(t, a, r, kv.Geometry{Layers: 2, KVHeads: 2, HeadDim: 16, DType: dtype}, 500)
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
						if err := p.Build(context.Background(), &retrieval.Build{View: v, Layer: layer, Heads: 8}); err != nil {
							t.Fatal(err)
						}
					}
					search(t, p, newCall(r, layer, 3, 8, 10, views...))
					search(t, p, newCall(r, layer, 1, 8, 1000, views...))
				}
			}
			if s := p.Stats(); s.Failures != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// recall is the mean share of the exact answer that the plugin found.
func recall(t *testing.T, p *Plugin, call *retrieval.Call) float64 {
	t.Helper()
	var res retrieval.Result
	if err := p.Search(context.Background(), call, &res); err != nil {
		t.Fatal(err)
	}
	found, all := 0, 0
	for i, want := range exact(t, call) {
		all += len(want)
		for _, id := range want {
			if slices.Contains(res.Hits[i].IDs, id) {
				found++
			}
		}
	}
	return float64(found) / float64(all)
}

// The faiss plugin finds nearly all, in forks with a tail too, and so does the
// process that takes over from one that was killed.
func TestFaissExample(t *testing.T) {
	if testing.Short() {
		t.Skip("installs faiss")
	}
	interpreter := python(t, "faiss-cpu==1.15.1")
	a := memory(t)
	var out logs
	o := script(t, a, filepath.Join(root, "examples/plugins/python-faiss/plugin.py"), interpreter)
	o.OnFailure, o.Logger, o.Params = plugin.Fallback, out.logger(), map[string]any{"ef_search": 200}
	o.Env = map[string]string{"OMP_NUM_THREADS": "1"}
	conform := o
	conform.OnFailure = plugin.Fail
	conformance.Test(t, conformance.Options{
		New:   func(ctx context.Context) (retrieval.Strategy, error) { return Load(ctx, conform) },
		Calls: 200, Allocator: a,
	})
	clock := &manualClock{fire: make(chan time.Time)}
	o.clock = clock
	p := load(t, o)
	r := rand.New(rand.NewPCG(10, 10))
	const heads = 4
	c := filled(t, a, r, kv.Geometry{Layers: 2, KVHeads: 2, HeadDim: 16, DType: kernel.BF16}, 2000)
	parent := indexed(c)
	for l := range 2 {
		if err := p.Build(context.Background(), &retrieval.Build{View: parent, Layer: l, Heads: heads}); err != nil {
			t.Fatal(err)
		}
	}
	fork := c.Fork()
	defer fork.Close()
	v := parent.Fork(fork)
	grow(t, r, fork, 70)
	v.Extend(70)
	for l := range 2 {
		rg := kv.Range{Lo: 1997, Hi: 2067}
		v.Place(l, rg, kv.Indexed)
		if err := p.Append(context.Background(), v, l, rg); err != nil {
			t.Fatal(err)
		}
	}
	check := func() {
		t.Helper()
		for l := range 2 {
			for _, view := range []*kv.View{parent, v} {
				if got := recall(t, p, newCall(r, l, 1, heads, 20, view)); got < 0.9 {
					t.Errorf("layer %d: recall %.2f", l, got)
				}
			}
		}
	}
	check()
	kill(t, p)
	clock.fire <- time.Time{}
	for l := range 2 {
		eventually(t, "the indexes are back", func() bool {
			return p.current.Load() != nil && p.indexes.ready(v, l, p.current.Load().number)
		})
	}
	check()
	if s := p.Stats(); s.Fallbacks != 0 || s.Failures != 1 || s.Restarts != 1 {
		t.Errorf("%+v\n%s", s, out.String())
	}
	runtime.KeepAlive(parent)
}

// What goes wrong in a Python plugin is an error of the call, with a trace in
// the log; its process and its children end with the host's end of the pipe.
func TestPython(t *testing.T) {
	interpreter := python(t)
	a := memory(t)
	file := filepath.Join(t.TempDir(), "pids")
	path := filepath.Join(t.TempDir(), "plugin.py")
	text := `
import logging, os, subprocess, sys
from ra_plugin import Parameter, Plugin, serve

class Odd(Plugin):
    name, version = "odd", "1.0.0"
    parameters = [Parameter("depth", "int", 3, min=1, max=9), Parameter("how", "string", "a", values=["a", "b"])]

    def configure(self, params, seed):
        print("configured", params, seed)
        child = subprocess.Popen(["/bin/sleep", "600"])
        with open(sys.argv[1], "w") as f:
            f.write(f"{os.getpid()} {child.pid}")

    def build(self, build):
        logging.warning("layer %d has no index", build.layer)

    def search(self, call):
        rows = next(call.sequences[0].keys(0))
        try:
            rows.array[0, 0] = 1
            raise SystemError("it wrote")
        except ValueError:
            pass
        try:
            next(call.sequences[0].values(0))
            raise SystemError("it read values")
        except PermissionError:
            pass
        call.emit(0, 0, 0, [5, 6], [0.5, float("nan")])
        if call.top_k == 7:
            raise KeyError("graph")

serve(Odd())
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out logs
	o := script(t, a, path, interpreter)
	o.Args, o.Params, o.Seed, o.Logger = []string{file}, map[string]any{"depth": 4, "how": "b"}, 11, out.logger()
	p, err := Load(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(11, 11))
	v := indexed(filled(t, a, r, kv.Geometry{Layers: 1, KVHeads: 1, HeadDim: 8, DType: kernel.F16}, 60))
	if err := p.Build(context.Background(), &retrieval.Build{View: v, Heads: 1}); err != nil {
		t.Error(err)
	}
	err = p.Search(context.Background(), newCall(r, 0, 1, 1, 7, v), &retrieval.Result{})
	wantText(t, err, "plugin python", "search: KeyError: 'graph'")
	err = p.Search(context.Background(), newCall(r, 0, 1, 1, 5, v), &retrieval.Result{})
	wantText(t, err, "the bias of id 6 is NaN")
	// As when the host is killed: the kernel closes its end of the pipe.
	if err := p.current.Load().life.Close(); err != nil {
		t.Error(err)
	}
	gone(t, file)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"{'depth': 4, 'how': 'b'} 11", "level=WARN msg=\"layer 0 has no index\"", "level=ERROR msg=\"search failed\"", "KeyError"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in the log:\n%s", want, out.String())
		}
	}
}
