package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/engine"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/model"
	"github.com/retrievalattention/ra/host/model/sampling"
	"github.com/retrievalattention/ra/host/placement"
	"github.com/retrievalattention/ra/host/plugin"
	"github.com/retrievalattention/ra/host/retrieval"
)

// What cannot be a plugin is refused with what is wrong and what to write.
func TestLoadErrors(t *testing.T) {
	a := memory(t)
	dir := t.TempDir()
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name string
		set  func(o *Options)
		is   error
		want []string
	}{
		{"missing", func(o *Options) { o.Path = "/no/such/file" }, plugin.ErrStart, []string{"plugin mine: load: cannot start: open /no/such/file"}},
		{"not executable", func(o *Options) { o.Path = file("script", "#!/bin/sh\n", 0o600) }, plugin.ErrStart, []string{"script is not executable; run chmod +x on it, or set interpreter"}},
		{"no program", func(o *Options) { o.Path = file("data", "1,2,3\n", 0o700) }, plugin.ErrStart, []string{"data is no program of this machine", "set interpreter"}},
		{"no such interpreter", func(o *Options) { o.Interpreter = "/no/such/python" }, plugin.ErrStart, []string{"/no/such/python", "does not exist"}},
		{"digest", func(o *Options) { o.SHA256 = strings.Repeat("0", 64) }, plugin.ErrDigest, []string{"pinned is sha256:000", `if the new file is the right one, write sha256 = "`, `in [[plugin]] "mine"`}},
		{"garbage", func(o *Options) { o.Env[pluginEnv] = "print:hello world" }, plugin.ErrStart, []string{`its first line on standard output is "hello world", not a handshake`, "a plugin writes nothing there before it serves"}},
		{"exits", func(o *Options) { o.Env[pluginEnv] = "exit" }, plugin.ErrStart, []string{"the process ended: exit status 3; it wrote: no module named faiss"}},
		{"version", func(o *Options) { o.Env[pluginEnv] = "print:1|2|unix|/tmp/x|grpc|" }, plugin.ErrABI, []string{"the plugin speaks version 2 of the process contract, this host version 1: update the older of the two"}},
		{"address", func(o *Options) { o.Env[pluginEnv] = "print:1|1|tcp|127.0.0.1:80|grpc|" }, plugin.ErrStart, []string{"it listens on tcp 127.0.0.1:80, not on a unix socket in"}},
		{"socket elsewhere", func(o *Options) { o.Env[pluginEnv] = "print:1|1|unix|/run/other.sock|grpc|" }, plugin.ErrStart, []string{"not on a unix socket in"}},
		{"silent", func(o *Options) { o.Env[pluginEnv], o.Limits.StartTimeout = "silent", 300*time.Millisecond }, plugin.ErrStart, []string{"no handshake within 300ms (limits.start_timeout)"}},
		{"grant", func(o *Options) { o.Env[pluginEnv] = "values" }, plugin.ErrCapability, []string{`the plugin needs the grant "values"; if it may have it, write grants = ["keys", "values"] in [[plugin]] "mine"`}},
		{"parameter", func(o *Options) { o.Params = map[string]any{"depth": 1} }, plugin.ErrParam, []string{`flat has no parameter "depth"`}},
		{"parameter out of range", func(o *Options) { o.Env[pluginEnv], o.Params = "tuned", map[string]any{"depth": 10} }, plugin.ErrParam, []string{"depth is 10 (int), want an integer from 1 to 9"}},
		{"description", func(o *Options) { o.Env[pluginEnv] = "badname" }, plugin.ErrABI, []string{`name "Bad Name"`}},
		{"unknown grant", func(o *Options) { o.Grants = []string{"files"} }, nil, []string{`grants: "files" is not one of keys, values, queries`}},
		{"memory", func(o *Options) { o.Memory = kv.NewAllocator(0) }, nil, []string{"the memory for keys and values is not shared"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(t, a, "flat")
			c.set(&o)
			p, err := Load(context.Background(), o)
			if err == nil {
				p.Close()
			}
			wantText(t, err, c.want...)
			var pe *plugin.Error
			if !errors.As(err, &pe) || pe.Operation != "load" || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("error %#v", err)
			}
		})
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left in the temporary folder: %v, %v", left, err)
	}
}

// A wrong answer never comes through: exact search answers instead, or the
// search fails, as the options say. What the plugin merely gets wrong does
// not cost its process.
func TestHostileAnswers(t *testing.T) {
	a := memory(t)
	r := rand.New(rand.NewPCG(2, 2))
	v := indexed(filled(t, a, r, kv.Geometry{Layers: 1, KVHeads: 2, HeadDim: 8}, 60))
	for _, c := range []struct {
		does string
		is   error
		want string
	}{
		{"range", retrieval.ErrHits, "id 1073741824 is out of range"},
		{"static", retrieval.ErrHits, "id 0 is a static token"},
		{"many", retrieval.ErrHits, "6 hits, at most 5 were asked for"},
		{"twice", retrieval.ErrHits, "id 5 was returned twice"},
		{"nan", retrieval.ErrHits, "the bias of id 6 is NaN"},
		{"large", plugin.ErrCall, "the message is too large"},
		{"error", plugin.ErrGuest, "search: the index is broken"},
		{"panic", plugin.ErrGuest, "panic: out of ideas"},
	} {
		t.Run(c.does, func(t *testing.T) {
			call := newCall(r, 0, 1, 4, 5, v)
			o := options(t, a, "hostile:"+c.does)
			p := load(t, o)
			err := p.Search(context.Background(), call, &retrieval.Result{})
			if !errors.Is(err, c.is) {
				t.Errorf("error %v, want %v", err, c.is)
			}
			wantText(t, err, "plugin mine@sha256:", "search layer 0 step 0", c.want)
			o.OnFailure = plugin.Fallback
			f := load(t, o)
			for range 3 {
				search(t, f, call)
			}
			if s := f.Stats(); s.Fallbacks != 3 || s.Failures != 3 || s.Restarts != 0 || s.Instances != 1 || !strings.Contains(s.LastError, c.want) {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// manualClock goes by hand.
type manualClock struct {
	mu    sync.Mutex
	now   time.Time
	waits []time.Duration
	fire  chan time.Time
}

func (c *manualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *manualClock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waits = append(c.waits, d)
	return c.fire
}

func (c *manualClock) waited() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]time.Duration(nil), c.waits...)
}

// kill ends the plugin's process as a crash would, and waits until the host
// has seen it.
func kill(t *testing.T, p *Plugin) {
	t.Helper()
	r := p.current.Load()
	if err := syscall.Kill(r.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the host sees the end", func() bool { return p.current.Load() != r })
}

// A search that hangs, and one during which the process dies, are answered
// exactly; the process is started again.
func TestProcessEndsInASearch(t *testing.T) {
	a := memory(t)
	r := rand.New(rand.NewPCG(3, 3))
	v := indexed(filled(t, a, r, kv.Geometry{Layers: 1, KVHeads: 2, HeadDim: 8}, 60))
	call := newCall(r, 0, 1, 4, 5, v)
	for does, want := range map[string]string{
		"hang": "deadline exceeded: search took too long, the process was ended",
		"die":  "plugin exited: the process ended: signal: killed",
	} {
		t.Run(does, func(t *testing.T) {
			o := options(t, a, "hostile:"+does)
			o.OnFailure, o.Limits.SearchTimeout = plugin.Fallback, time.Second
			p := load(t, o)
			search(t, p, call)
			wantText(t, errors.New(p.Stats().LastError), want)
			eventually(t, "a restart", func() bool { return p.Stats().Restarts == 1 })
			if s := p.Stats(); s.Failures != 2 || s.Fallbacks != 1 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// While the process is away, searches are answered exactly or fail; when it
// is back with its indexes, it answers again: forks with what was appended to
// them included, and what was appended while it was away.
func TestRestore(t *testing.T) {
	for _, mode := range []string{"keeper", "exporter"} {
		t.Run(mode, func(t *testing.T) {
			a := memory(t)
			r := rand.New(rand.NewPCG(4, 4))
			const layers, heads = 2, 4
			c := filled(t, a, r, kv.Geometry{Layers: layers, KVHeads: 2, HeadDim: 8, DType: kernel.BF16}, 100)
			clock := &manualClock{fire: make(chan time.Time)}
			var out logs
			o := options(t, a, mode)
			o.OnFailure, o.clock, o.Logger = plugin.Fallback, clock, out.logger()
			if mode == "keeper" {
				o.Grants = append(o.Grants, "queries")
			}
			p := load(t, o)
			ctx := context.Background()
			parent := indexed(c)
			kept, err := a.Alloc(100*heads*8*4, kv.Queries)
			if err != nil {
				t.Fatal(err)
			}
			defer kept.Release()
			var sums []string
			for l := range layers {
				// Queries of layer 1 are where the engine has them.
				b := &retrieval.Build{View: parent, Layer: l, Heads: heads, Queries: vector(r, 100*heads*8)}
				if l == 1 {
					copy(kv.Slice[float32](kept, 0, 100*heads*8), b.Queries)
					b.Queries = kv.Slice[float32](kept, 0, 100*heads*8)
				}
				var sum float32
				for _, x := range b.Queries {
					sum += x
				}
				sums = append(sums, fmt.Sprintf("queries=400 sum=%v", sum))
				if err := p.Build(ctx, b); err != nil {
					t.Fatal(err)
				}
			}
			fork := c.Fork()
			t.Cleanup(func() { fork.Close() })
			v := parent.Fork(fork)
			appendTo := func(n int) {
				t.Helper()
				grow(t, r, fork, n)
				v.Extend(n)
				for l := range layers {
					rg := kv.Range{Lo: v.Len() - n - 3, Hi: v.Len() - 3}
					v.Place(l, rg, kv.Indexed)
					if err := p.Append(ctx, v, l, rg); err != nil {
						t.Fatal(err)
					}
				}
			}
			check := func(fallbacks int64) {
				t.Helper()
				for l := range layers {
					search(t, p, newCall(r, l, 1, heads, 7, v))
					search(t, p, newCall(r, l, 1, heads, 7, parent))
				}
				if s := p.Stats(); s.Fallbacks != fallbacks {
					t.Errorf("%d fallbacks, want %d; last error %s", s.Fallbacks, fallbacks, s.LastError)
				}
			}
			appendTo(20)
			check(0)
			kill(t, p)
			check(4)
			appendTo(10)
			check(8)
			clock.fire <- time.Time{}
			for l := range layers {
				eventually(t, "the indexes are back", func() bool {
					return p.current.Load() != nil && p.indexes.ready(v, l, p.current.Load().number)
				})
			}
			check(8)
			appendTo(5)
			check(8)
			if s := p.Stats(); s.Restarts != 1 || s.Failures != 1 || !strings.Contains(s.LastError, "signal: killed") {
				t.Errorf("stats %+v", s)
			}
			text := out.String()
			wants := append(sums, "plugin=mine from=plugin", "queries=0 sum=0", "was started again")
			if mode == "exporter" {
				wants = []string{"plugin=mine from=plugin", "msg=import", "zeros=3145728", "[{97 117} {117 127}]", "was started again"}
			}
			for _, want := range wants {
				if !strings.Contains(text, want) {
					t.Errorf("%q is not in the log:\n%s", want, text)
				}
			}
			runtime.KeepAlive(parent)
		})
	}
}

// With on_failure = "fail" a search without a process fails, and says why.
func TestUnavailable(t *testing.T) {
	a := memory(t)
	r := rand.New(rand.NewPCG(5, 5))
	v := indexed(filled(t, a, r, kv.Geometry{Layers: 1, KVHeads: 1, HeadDim: 8}, 60))
	o := options(t, a, "flat")
	o.clock = &manualClock{fire: make(chan time.Time)}
	p := load(t, o)
	kill(t, p)
	err := p.Search(context.Background(), newCall(r, 0, 1, 1, 5, v), &retrieval.Result{})
	if !errors.Is(err, plugin.ErrUnavailable) {
		t.Error(err)
	}
	wantText(t, err, "plugin mine", "search layer 0", "its process is being started again")
	if err := p.Build(context.Background(), &retrieval.Build{View: v, Heads: 1}); !errors.Is(err, plugin.ErrUnavailable) {
		t.Error(err)
	}
}

// A build that fails costs the layer its index, not the request; one that the
// process dies of is tried again by the next process.
func TestBuildFails(t *testing.T) {
	a := memory(t)
	r := rand.New(rand.NewPCG(6, 6))
	v := indexed(filled(t, a, r, kv.Geometry{Layers: 1, KVHeads: 1, HeadDim: 8}, 60))
	for _, does := range []string{"build-fails", "build-dies"} {
		o := options(t, a, "hostile:"+does)
		o.OnFailure, o.clock = plugin.Fallback, &manualClock{fire: make(chan time.Time)}
		p := load(t, o)
		if err := p.Build(context.Background(), &retrieval.Build{View: v, Heads: 1}); err != nil {
			t.Fatal(err)
		}
		search(t, p, newCall(r, 0, 1, 1, 5, v))
		if s := p.Stats(); s.Fallbacks != 1 || s.Failures < 1 {
			t.Errorf("%s: %+v", does, s)
		}
		o.OnFailure = plugin.Fail
		p = load(t, o)
		err := p.Build(context.Background(), &retrieval.Build{View: v, Heads: 1})
		wantText(t, err, "plugin mine", "build layer 0")
	}
}

// The process is told of views that nobody can reach any more.
func TestForget(t *testing.T) {
	a := memory(t)
	r := rand.New(rand.NewPCG(7, 7))
	var out logs
	o := options(t, a, "keeper")
	o.Grants, o.Logger = []string{"keys", "queries"}, out.logger()
	p := load(t, o)
	c := filled(t, a, r, kv.Geometry{Layers: 1, KVHeads: 1, HeadDim: 8}, 60)
	id := func() uint64 {
		v := indexed(c)
		if err := p.Build(context.Background(), &retrieval.Build{View: v, Heads: 1}); err != nil {
			t.Fatal(err)
		}
		return v.ID()
	}()
	eventually(t, "forget", func() bool {
		runtime.GC()
		return strings.Contains(out.String(), fmt.Sprintf("msg=forget plugin=mine from=plugin views=[%d]", id))
	})
}

// The waits double up to a bound, each with its jitter, the same for a seed.
func TestBackoff(t *testing.T) {
	b, again := newBackoff(7), newBackoff(7)
	for i, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000} {
		want *= time.Millisecond
		d := b.wait()
		if d < want*4/5 || d > want*6/5 || d == want {
			t.Errorf("wait %d is %s, want about %s", i, d, want)
		}
		if other := again.wait(); other != d {
			t.Errorf("wait %d is %s with the same seed", i, other)
		}
	}
	b.reset()
	if d := b.wait(); d > 120*time.Millisecond {
		t.Errorf("%s after a reset", d)
	}
}

// A process that dies again and again is started later each time; one whose
// file has changed is not started.
func TestRestartsBackOff(t *testing.T) {
	a := memory(t)
	clock := &manualClock{fire: make(chan time.Time)}
	o := options(t, a, "flat")
	path := filepath.Join(t.TempDir(), "plugin.sh")
	script := fmt.Sprintf("#!/bin/sh\nexec %q\n", o.Path)
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	o.Path, o.Interpreter, o.clock = path, "/bin/sh", clock
	p := load(t, o)
	for range 3 {
		kill(t, p)
		clock.fire <- time.Time{}
		eventually(t, "a restart", func() bool { return p.current.Load() != nil })
	}
	w := clock.waited()
	if len(w) != 3 || w[1] < w[0] || w[2] < w[1] {
		t.Errorf("waits %v", w)
	}
	clock.mu.Lock()
	clock.now = clock.now.Add(stable)
	clock.mu.Unlock()
	kill(t, p)
	if err := os.WriteFile(path, []byte(script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	clock.fire <- time.Time{}
	eventually(t, "another wait", func() bool { return len(clock.waited()) == 5 })
	if w := clock.waited(); w[3] > 2*firstWait {
		t.Errorf("waits %v: the fourth should be the first again", w)
	}
	wantText(t, errors.New(p.Stats().LastError), "restart", "digest mismatch", "it was sha256:")
}

// A plugin has what it was granted, read-only, and nothing else of the
// host's.
func TestGrants(t *testing.T) {
	a := memory(t)
	r := rand.New(rand.NewPCG(8, 8))
	v := indexed(filled(t, a, r, kv.Geometry{Layers: 1, KVHeads: 1, HeadDim: 8}, 60))
	t.Setenv("RA_SECRET", "x")
	p := load(t, options(t, a, "snoop"))
	err := p.Search(context.Background(), newCall(r, 0, 1, 1, 5, v), &retrieval.Result{})
	wantText(t, err, "found: []")
}

// host loads a plugin that starts a child, and waits to be killed.
func host(guest string) {
	a, err := kv.NewSharedAllocator(0)
	if err != nil {
		panic(err)
	}
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	if _, err := Load(context.Background(), Options{
		Path: exe, Env: map[string]string{pluginEnv: guest}, Grants: []string{"keys"}, Memory: a,
		Logger: slog.New(slog.DiscardHandler),
	}); err != nil {
		panic(err)
	}
	fmt.Println("loaded")
	time.Sleep(time.Hour)
}

func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !strings.Contains(string(state), ") Z ") // dead, but nobody has asked
}

// gone waits until the two processes that the file names have ended.
func gone(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var parent, child int
	if _, err := fmt.Sscan(string(text), &parent, &child); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(2 * time.Second); alive(parent) || alive(child); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after 2 s: plugin alive %v, its child alive %v", alive(parent), alive(child))
		}
	}
}

// When the host is killed, or closes the plugin, neither the plugin nor a
// child of its outlives it.
func TestNoOrphans(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a host")
	}
	killed := func(t *testing.T, guest string) {
		file := filepath.Join(t.TempDir(), "pids")
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		temp, err := os.MkdirTemp("", "ra") // sockets have short paths
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(temp)
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), "TMPDIR="+temp, pluginEnv+"=host:"+guest+":"+file)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if n, err := out.Read(make([]byte, 16)); n == 0 {
			t.Fatal("the host did not load the plugin: ", err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		gone(t, file)
	}
	t.Run("killed", func(t *testing.T) { killed(t, "family") })
	t.Run("killed, plugin without watchdog", func(t *testing.T) {
		if runtime.GOOS != "linux" {
			t.Skip("only Linux ends the group by itself")
		}
		killed(t, "deaf")
	})
	t.Run("closed", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "pids")
		p, err := Load(context.Background(), options(t, memory(t), "family:"+file))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		gone(t, file)
	})
}

// A whole answer comes out the same, bit by bit, by native exact search and by
// a process, and by one that is killed in the middle of it.
func TestAnswersSurviveAKill(t *testing.T) {
	m, err := model.Open("../../model/testdata/gqa2-d64-bf16-tied-linear")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	backend := compute.NewCPU()
	loaded, err := backend.Load(m.Weights)
	if err != nil {
		t.Fatal(err)
	}
	document, err := m.Tokenizer.Encode("It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness.", true)
	if err != nil {
		t.Fatal(err)
	}
	a := memory(t)
	answer := func(s retrieval.Strategy, token func(n int)) (logits [][]float32) {
		t.Helper()
		e, err := engine.New(engine.Options{
			Model: loaded, Backend: backend, Strategy: s, DType: kernel.BF16, TopK: 10, Memory: a,
			Policy: placement.SinkWindow{Sink: 4, Window: 8}, MaxContext: len(document) + 20,
		})
		if err != nil {
			t.Fatal(err)
		}
		d, err := e.Prefill(context.Background(), document[:len(document)-3], engine.PrefillOptions{Modes: []engine.Mode{engine.Retrieval}})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		greedy, err := sampling.New(sampling.Params{})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		if _, err := d.Answer(context.Background(), engine.AnswerOptions{
			Mode: engine.Retrieval, Question: document[len(document)-3:], MaxTokens: 6, Sampler: greedy,
			Logits: func(l []float32) { logits = append(logits, append([]float32(nil), l...)) },
			Token:  func(int32) { n++; token(n) },
		}); err != nil {
			t.Fatal(err)
		}
		return logits
	}
	want := answer(retrieval.NewFlat(backend), func(int) {})
	for _, killed := range []bool{false, true} {
		var out logs
		o := options(t, a, "keeper")
		o.Grants = []string{"keys", "queries"}
		o.OnFailure, o.Logger, o.clock = plugin.Fallback, out.logger(), &manualClock{fire: make(chan time.Time)}
		p := load(t, o)
		got := answer(p, func(n int) {
			if killed && n == 3 {
				if err := syscall.Kill(p.current.Load().cmd.Process.Pid, syscall.SIGKILL); err != nil {
					t.Error(err)
				}
			}
		})
		if !reflect.DeepEqual(got, want) {
			t.Errorf("killed %v: the logits differ from those of exact search", killed)
		}
		s := p.Stats()
		if !killed {
			if s.Failures != 0 || s.Fallbacks != 0 {
				t.Errorf("stats %+v", s)
			}
			continue
		}
		if s.Fallbacks == 0 || s.Fallbacks == s.Searches {
			t.Errorf("stats %+v: the plugin answers at first, exact search later", s)
		}
		eventually(t, "the log says it", func() bool {
			text := out.String()
			return strings.Contains(text, "plugin exited: the process ended: signal: killed") &&
				strings.Contains(text, "search answered by exact search instead of the plugin") &&
				strings.Contains(text, "will be started again")
		})
	}
}
