package main

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/retrievalattention/ra/host/bench"
)

// quickBench measures searches in no time.
var quickBench = []string{"plugin", "bench", "--keys", "600", "--dim", "16", "--kv-heads", "2", "--group", "2", "--queries", "3", "--repeats", "1", "--append", "10", "--top-k", "20"}

func searches(t *testing.T, out string) map[string]bench.SearchResult {
	t.Helper()
	var rep bench.SearchReport
	if err := json.Unmarshal([]byte(out), &rep); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	by := map[string]bench.SearchResult{}
	for _, s := range rep.Searches {
		by[s.Name] = s
	}
	return by
}

func TestPluginBench(t *testing.T) {
	t.Chdir(t.TempDir())
	code, out, stderr := ra(t, nil, "", append(quickBench, "flat", "native:graph:beam=64", "native:ivf:lists=2", "native:flat", "--json")...)
	if code != exitOK || !strings.Contains(stderr, "measure: 100 %") {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	by := searches(t, out)
	if len(by) != 4 {
		t.Fatalf("%s", out)
	}
	flat, wasm, graph, ivf := by["native:flat"], by["flat"], by["native:graph:beam=64"], by["native:ivf:lists=2"]
	if flat.Recall != 1 || flat.Ratio.Median != 1 || wasm.Recall != 1 || wasm.Search.Runtime != "wasm" || wasm.KeysScoredShare != 1 || wasm.MemoryBytes < 1<<16 {
		t.Errorf("%+v\n%+v", flat, wasm)
	}
	if graph.IndexBytes == 0 || graph.BuildSeconds <= flat.BuildSeconds || graph.Recall < 0.5 {
		t.Errorf("%+v", graph)
	}
	// Two of the lists hold a part of the keys, and of what is to be found.
	if ivf.KeysScoredShare <= 0 || ivf.KeysScoredShare >= 0.5 || ivf.Recall >= 1 || ivf.IndexBytes == 0 {
		t.Errorf("%+v", ivf)
	}
	for _, f := range strings.Fields("machine seed set source keys appended dim kv_heads group steps kv_dtype key_bytes top_k repeats searches name search recall keys_scored_share call_seconds median q1 q3 n p95 p99 query_seconds flat_ratio build_seconds append_seconds_per_token index_bytes memory_bytes") {
		if !strings.Contains(out, `"`+f+`"`) {
			t.Errorf("no field %q", f)
		}
	}
	// The same inputs, and so the same answers, every time.
	_, out, _ = ra(t, nil, "", append(quickBench, "native:ivf:lists=2", "--json")...)
	if again := searches(t, out)["native:ivf:lists=2"]; again.Recall != ivf.Recall || again.KeysScoredShare != ivf.KeysScoredShare {
		t.Errorf("%+v, then %+v", ivf, again)
	}
	code, out, stderr = ra(t, nil, "", append(quickBench, "flat", "--synth", "mild")...)
	if code != exitOK || !strings.Contains(out, "synth mild, seed 1: 600 keys of 16") || !strings.Contains(out, "recall@20") {
		t.Errorf("exit code %d: %s%s", code, out, stderr)
	}
}

// Parameters of the configuration are those of the plugin that it chooses.
func TestPluginBenchParams(t *testing.T) {
	for name, want := range map[string]benchArg{
		"flat":               {name: "flat"},
		"native:graph":       {name: "native:graph"},
		"a/b.wasm:x=1":       {name: "a/b.wasm", params: map[string]string{"x": "1"}},
		"native:ivf:l=2":     {name: "native:ivf", params: map[string]string{"l": "2"}},
		`c:\d.wasm:x=,y=p:q`: {name: `c:\d.wasm`, params: map[string]string{"x": "", "y": "p:q"}},
	} {
		got, err := parseBenchArg(name)
		if err != nil || got.text != name || got.name != want.name || !maps.Equal(got.params, want.params) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	t.Chdir(t.TempDir())
	if err := os.WriteFile("raconfig.toml", []byte("version = 1\n[search]\nplugin = \"mine\"\n[search.params]\nbeam = 2\n[[plugin]]\nname = \"mine\"\npath = \"flat.wasm\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	module, err := os.ReadFile(filepath.Join(modules, "../../../plugins/dist/flat.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("flat.wasm", module, 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"mine":         "raconfig.toml:5: plugin mine@sha256:",
		"flat:batch=9": "flat:batch=9: plugin flat@sha256:",
		"flat:batch=":  "flat:batch=: plugin flat@sha256:",
	} {
		if code, _, stderr := ra(t, nil, "", append(quickBench, args)...); code != exitConfig || !strings.Contains(stderr, want) {
			t.Errorf("%s: %d %s", args, code, stderr)
		}
	}
	if code, out, stderr := ra(t, nil, "", append(quickBench, "flat", "flat:batch=2")...); code != exitOK || !strings.Contains(out, "flat:batch=2") {
		t.Errorf("good parameters: %d %s%s", code, out, stderr)
	}
}

func TestPluginBenchFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	write := func(name string, n, d int) {
		t.Helper()
		b := binary.LittleEndian.AppendUint32(nil, uint32(n))
		b = binary.LittleEndian.AppendUint32(b, uint32(d))
		for i := range n * d {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(i*i%101)-50))
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"plugin", "bench", "flat", "--data", ".", "--group", "2", "--queries", "5", "--append", "20", "--top-k", "7", "--kv-dtype", "f32"}
	if code, _, stderr := ra(t, nil, "", args...); code != exitFailure || !strings.Contains(stderr, "keys.fbin") {
		t.Errorf("no files: %d %s", code, stderr)
	}
	write("keys.fbin", 200, 8)
	write("queries.fbin", 10, 8)
	code, out, stderr := ra(t, nil, "", append(args, "--json")...)
	if code != exitOK || searches(t, out)["flat"].Recall != 1 || !strings.Contains(out, `"keys": 180`) || !strings.Contains(out, `"kv_dtype": "f32"`) {
		t.Errorf("exit code %d: %s%s", code, out, stderr)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"native:graph", exitUsage, "native:graph builds from the prefill's queries and . has only those of the steps; ask for fewer steps"},
		{"--queries 6", exitUsage, "queries.fbin has 10 vectors, 5 steps of 2 query heads; 6 steps are asked for"},
		{"--keys 10", exitUsage, "--data and --keys exclude each other"},
	} {
		if code, out, stderr := ra(t, nil, "", append(args, strings.Fields(c.args)...)...); code != c.code || out != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: %d %s%s", c.args, code, out, stderr)
		}
	}
}

func TestPluginBenchErrors(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"", exitUsage, "requires at least 1 arg"},
		{"flt", exitPlugin, `no built-in plugin "flt"; did you mean "flat"?`},
		{"sinkwindow", exitPlugin, "is a policy plugin, a search plugin is asked for"},
		{"flat flat", exitUsage, "flat is named twice"},
		{"flat:a=1,b", exitUsage, `flat:a=1,b: the parameter "b" is not NAME=VALUE`},
		{"flat:a=1,a=2", exitUsage, "the parameter a is set twice"},
		{"native:hnsw", exitUsage, "there is no native:hnsw; there are native:flat, native:graph and native:ivf"},
		{"native:flat:k=1", exitUsage, "exact search has no parameters"},
		{"native:graph:beam=0", exitUsage, "the parameter of native:graph is beam, a positive integer"},
		{"flat --synth soft", exitUsage, `there is no synthetic set "soft"`},
		{"flat --top-k 0", exitUsage, "top-k is 0"},
		{"flat --keys 100000000000", exitPrompt, "not enough memory: a set of 100000000000 keys needs"},
		{filepath.Join(modules, "trapping.wasm"), exitPlugin, "search: "},
	} {
		if code, out, stderr := ra(t, nil, "", append(quickBench, strings.Fields(c.args)...)...); code != c.code || out != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: %d %s%s", c.args, code, out, stderr)
		}
	}
}

// A process searches the same keys, which it has in shared memory.
func TestPluginBenchProcess(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles a plugin")
	}
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "mine"), "../../../examples/plugins/go-process-flat").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Chdir(dir)
	if err := os.WriteFile("raconfig.toml", []byte("version = 1\n[[plugin]]\nname = \"mine\"\nruntime = \"process\"\npath = \"mine\"\ngrants = [\"keys\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, stderr := ra(t, nil, "", append(quickBench, "mine", "--json")...)
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if s := searches(t, out)["mine"]; s.Recall != 1 || s.Search.Runtime != "process" {
		t.Errorf("%+v", s)
	}
}
