package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/retrievalattention/ra/host/bench"
	"github.com/retrievalattention/ra/host/engine"
	"github.com/retrievalattention/ra/host/kernel"
)

// quick makes a measurement of kernels that takes no time and says nothing.
var quick = []string{"bench", "kernels", "--dims", "64", "--repeats", "1", "--slice", "10us", "--working-set", "1"}

// Stdout carries the report alone, as a table or as JSON with documented
// fields.
func TestBenchKernels(t *testing.T) {
	t.Chdir(t.TempDir())
	code, out, stderr := ra(t, nil, "", append(quick, "--plot", "k.svg")...)
	if code != exitOK || !strings.Contains(out, "score-range") || !strings.Contains(out, "memory read") || !strings.Contains(stderr, "kernels "+kernel.Level()+": 100 %") {
		t.Errorf("exit code %d: %s%s", code, out, stderr)
	}
	if svg, err := os.ReadFile("k.svg"); err != nil || !strings.Contains(string(svg), "<svg") {
		t.Errorf("plot: %v", err)
	}
	code, out, stderr = ra(t, nil, "", append(quick, "--only", "attend-list", "--threads", "1", "--json")...)
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var keys struct {
		Machine  map[string]any
		Seed     int
		Ceilings []map[string]any
		Kernels  []map[string]any
	}
	if err := json.Unmarshal([]byte(out), &keys); err != nil || len(keys.Kernels) != 1 || len(keys.Ceilings) != 2 || keys.Seed != 1 {
		t.Fatalf("%v in %s", err, out)
	}
	for _, c := range []struct {
		object map[string]any
		fields string
	}{
		{keys.Machine, "cpu os arch threads kernel_level go version"},
		{keys.Ceilings[0], "name unit threads level median q1 q3 n"},
		{keys.Kernels[0], "name level dtype dim n queries threads cache arithmetic unit ns_per_unit gb_per_s gflop_per_s share bound"},
	} {
		for _, f := range strings.Fields(c.fields) {
			if _, ok := c.object[f]; !ok {
				t.Errorf("%v has no %q", c.object, f)
			}
		}
	}
}

// Each level is measured by a process of its own.
func TestBenchLevels(t *testing.T) {
	t.Chdir(t.TempDir())
	code, out, stderr := ra(t, []string{childEnv + "=1"}, "", append(quick, "--only", "score-range", "--levels", "all", "--json")...)
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var rep bench.KernelReport
	if err := json.Unmarshal([]byte(out), &rep); err != nil {
		t.Fatal(err)
	}
	var levels []string
	for _, k := range rep.Kernels {
		levels = append(levels, k.Level)
	}
	if got := slices.Compact(levels); !slices.Equal(got, kernel.Levels()) {
		t.Errorf("levels %v, want %v", got, kernel.Levels())
	}
	// A child that fails says why on stderr.
	code, out, stderr = ra(t, []string{childEnv + "=1", "RA_CONFIG=missing.toml"}, "", append(quick, "--levels", "generic", "--only", "nothing")...)
	if code == exitOK || out != "" || !strings.Contains(stderr, "no kernel's name contains") {
		t.Errorf("exit code %d: %s%s", code, out, stderr)
	}
}

// The embedded model is measured in all modes, by the native search and by a
// plugin.
func TestBenchModel(t *testing.T) {
	t.Chdir(t.TempDir())
	small := []string{"bench", "model", "--context", "700,800", "--repeats", "1", "--steps", "1", "--min-time", "0s", "--working-set", "1"}
	for _, c := range []struct{ args, search, runtime string }{
		{"", "flat", "native"}, {"--search flat", "flat", "wasm"},
	} {
		code, out, stderr := ra(t, nil, "", append(append(small, "--prompt", "20", "--json"), strings.Fields(c.args)...)...)
		if code != exitOK || !strings.Contains(stderr, "measure embedded: 100 %") {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
		var rep bench.ModelReport
		if err := json.Unmarshal([]byte(out), &rep); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		if len(rep.Decode) != 6 || len(rep.Prefill) != 1 || rep.Search.Name != c.search || rep.Search.Runtime != c.runtime || rep.Model.RandomWeights || rep.Model.Scaled() {
			t.Errorf("%s", out)
		}
		for _, d := range rep.Decode {
			if d.Step.Median <= 0 || (d.Attention == engine.Retrieval) != (d.Search.Median > 0) {
				t.Errorf("%+v", d)
			}
		}
		for _, f := range strings.Fields("machine model kv_dtype search top_k policy static_tokens memory decode prefill context attention step_seconds projections_seconds attention_seconds logits_seconds other_seconds static_seconds search_seconds retrieved_seconds index_seconds tokens_per_second attended_share keys_scored_share bytes floor_seconds floor_ratio prompt seconds gflop_per_s layers_measured") {
			if !strings.Contains(out, `"`+f+`"`) {
				t.Errorf("no field %q", f)
			}
		}
	}
	code, out, stderr := ra(t, nil, "", append(small, "--attention", "static", "--prompt", "0", "--plot", "m.png")...)
	if code != exitOK || !strings.Contains(out, "static") || strings.Contains(out, "retrieval") || strings.Contains(out, "prefill") {
		t.Errorf("exit code %d: %s%s", code, out, stderr)
	}
	if _, err := os.Stat("m.png"); err != nil {
		t.Error(err)
	}
}
