package process

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/plugin"
	"github.com/retrievalattention/ra/host/retrieval"
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
			p := load(t, opts(t, a))
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

var _ = fmt.Sprint
