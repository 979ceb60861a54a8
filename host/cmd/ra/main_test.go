package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	referencemodel "github.com/retrievalattention/ra/examples/reference-model"
	"github.com/retrievalattention/ra/host/kernel"
)

// childEnv makes this test binary behave as ra: some commands start themselves.
const childEnv = "RATEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// ra runs a command line in an empty working directory.
func ra(t *testing.T, env []string, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(context.Background(), args, terminal{
		in: strings.NewReader(stdin), out: &out, err: &err,
		environ: env,
	})
	return code, out.String(), err.String()
}

const (
	text     = "The grass is green. The sky is blue.\nOne of the special magic numbers for stone is: 4829173.\nHere we go. There and back again.\n"
	question = "What is the special magic number for stone mentioned in the provided text? The special magic number for stone mentioned in the provided text is"
)

// small makes a static set that does not cover the text.
var small = []string{"--sink", "4", "--window", "8", "--top-k", "8", "--max-tokens", "3"}

func TestGenerateJSON(t *testing.T) {
	t.Chdir(t.TempDir())
	args := append([]string{"generate", "-p", text, "-q", question, "-q", "And then?", "--attention", "retrieval,full,static", "--json"}, small...)
	code, out, stderr := ra(t, nil, "", args...)
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var r struct {
		report
		Search *struct {
			Name, Digest, Runtime string
			Searches, Fallbacks   int64
		} `json:"search"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if len(r.Answers) != 6 || r.GeneratedTokens < 6 || r.PromptTokens < 60 || r.PrefillSeconds <= 0 || r.DecodeSeconds <= 0 || r.PeakRSSBytes < 1<<20 {
		t.Errorf("%+v", r)
	}
	// Two segments of 3 layers x 2 KV heads x 64 x 2 x 2 bytes a token.
	if m := r.Memory; m.KeysValuesBytes != 2*1024*1536 || m.IndexBytes != 0 || m.QueriesBytes != 0 || m.BudgetBytes != 0 {
		t.Errorf("memory %+v", m)
	}
	if r.Search == nil || r.Search.Name != "flat" || r.Search.Runtime != "wasm" || !strings.HasPrefix(r.Search.Digest, "sha256:") || r.Search.Searches == 0 || r.Search.Fallbacks != 0 {
		t.Errorf("search %+v", r.Search)
	}
	for i, a := range r.Answers {
		full := i%3 == 1
		if full != (a.AttendedShare == 1) || (i%3 == 0) != (a.KeysScoredShare > 0) {
			t.Errorf("answer %d: %+v", i, a)
		}
	}
	var keys map[string]any
	if err := json.Unmarshal([]byte(out), &keys); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"text", "prompt_tokens", "generated_tokens", "prefill_seconds", "decode_seconds", "tokens_per_second", "peak_rss_bytes", "memory", "attended_share", "keys_scored_share", "search"} {
		if _, ok := keys[k]; !ok {
			t.Errorf("the object has no %q", k)
		}
	}
}

// Keys and values are stored as configured; the answer is the same.
func TestKVDTypes(t *testing.T) {
	t.Chdir(t.TempDir())
	answers := map[string]bool{}
	for dtype, size := range map[string]int64{"bf16": 2, "f16": 2, "f32": 4} {
		args := append([]string{"generate", "-p", text, "-q", question, "--json"}, small...)
		code, out, stderr := ra(t, []string{"RA_MODEL_KV_DTYPE=" + dtype}, "", args...)
		var r report
		if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitOK {
			t.Fatalf("exit code %d, %v: %s", code, err, stderr)
		}
		if want := 2 * 1024 * 3 * 2 * 64 * 2 * size; r.Memory.KeysValuesBytes != want {
			t.Errorf("%s: %d bytes of keys and values, want %d", dtype, r.Memory.KeysValuesBytes, want)
		}
		answers[r.Text] = true
	}
	if len(answers) != 1 {
		t.Errorf("answers %v", answers)
	}
}

// Stdout carries the answers alone, a line each; the text may come by flag,
// file or stdin, with or without a question.
func TestGenerateText(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("doc.txt", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var outs []string
	for _, c := range []struct {
		stdin string
		args  []string
	}{
		{"", []string{"-p", text, "-q", question}},
		{"", []string{"-f", "doc.txt", "-q", question}},
		{text, []string{"-f", "-", "-q", question}},
		{text + question + "\n", []string{"-f", "-"}},
	} {
		code, out, stderr := ra(t, nil, c.stdin, append(append([]string{"generate"}, c.args...), small...)...)
		if code != exitOK || strings.Count(out, "\n") != 1 || !strings.Contains(stderr, "prefill") || !strings.Contains(stderr, "retrieval attention: ") {
			t.Fatalf("%q: exit code %d, stdout %q, stderr %q", c.args, code, out, stderr)
		}
		outs = append(outs, out)
	}
	for _, o := range outs[1:] {
		if o != outs[0] {
			t.Errorf("the same prompt gave %q", outs)
		}
	}
}

// broken returns a copy of the embedded model with one file changed.
func broken(t *testing.T, file string, change func([]byte) []byte) string {
	t.Helper()
	dir := t.TempDir()
	entries, err := fs.ReadDir(referencemodel.Files, ".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := fs.ReadFile(referencemodel.Files, e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if e.Name() == file {
			data = change(data)
		}
		if data == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, e.Name()), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func replace(old, new string) func([]byte) []byte {
	return func(b []byte) []byte {
		if !bytes.Contains(b, []byte(old)) {
			panic("nothing to replace: " + old)
		}
		return bytes.Replace(b, []byte(old), []byte(new), 1)
	}
}

// Each kind of bad input ends with its exit code and a message that says
// what is wrong.
func TestBadInput(t *testing.T) {
	write := func(name, text string) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	ask := func(args ...string) []string { return append([]string{"generate", "-p", text, "-q", "q"}, args...) }
	onModel := func(file string, change func([]byte) []byte) []string {
		return ask("--model", broken(t, file, change))
	}
	for _, c := range []struct {
		name string
		env  []string
		args []string
		code int
		want []string
	}{
		{"unknown command", nil, []string{"generat"}, exitUsage, []string{"unknown command", "generat"}},
		{"unknown flag", nil, []string{"generate", "--tok"}, exitUsage, []string{"unknown flag: --tok"}},
		{"argument", nil, []string{"generate", "x"}, exitUsage, []string{`unknown command "x"`}},
		{"no prompt", nil, []string{"generate"}, exitUsage, []string{"no prompt; give a file with -f or text with -p"}},
		{"two prompts", nil, ask("-f", "x"), exitUsage, []string{"-f and -p exclude each other"}},
		{"unknown mode", nil, ask("--attention", "retrieval,half"), exitUsage, []string{`unknown attention mode "half"; it is one of retrieval, full, static`}},
		{"unknown first mode", nil, ask("--attention", "half,full"), exitUsage, []string{`unknown attention mode "half"`}},
		{"mode twice", nil, ask("--attention", "full,full"), exitUsage, []string{"names full twice"}},
		{"bad value", nil, ask("--window", "0"), exitConfig, []string{"flag for policy.params.window: plugin sinkwindow@sha256:", "invalid parameter: window is 0 (int64), want an integer from 1 to 1048576"}},
		{"no parameter", nil, ask("--policy-param", "winow=3"), exitConfig, []string{`sinkwindow has no parameter "winow"; did you mean "window"?`}},
		{"parameter form", nil, ask("--policy-param", "window"), exitUsage, []string{`--policy-param "window" is not NAME=VALUE`}},
		{"parameter in the file", nil, append([]string{"--config", write("p.toml", "version = 1\n\n[policy.params]\nsink = -4\n")}, ask()...), exitConfig,
			[]string{"p.toml:4: plugin sinkwindow@sha256:", "sink is -4 (int64), want an integer from 0 to 1048576"}},
		{"parameter in the environment", []string{"RA_SEARCH_PARAMS_BATCH=many"}, ask(), exitConfig, []string{"RA_SEARCH_PARAMS_BATCH: plugin flat@sha256:", `batch is "many" (string)`}},
		{"unknown key", nil, append([]string{"--config", write("c.toml", "version = 1\n\n[search]\nplugn = \"x\"\n")}, ask()...), exitConfig,
			[]string{`c.toml:4: unknown key "search.plugn"; the nearest known key is "search.plugin"`}},
		{"no such file", nil, []string{"generate", "-f", "missing.txt"}, exitFailure, []string{"read the prompt", "missing.txt"}},
		{"empty prompt", nil, []string{"generate", "-f", write("empty.txt", "\n\n")}, exitPrompt, []string{"empty prompt"}},
		{"empty question", nil, []string{"generate", "-p", text, "-q", ""}, exitPrompt, []string{"empty prompt: question 1"}},
		{"too long", []string{"RA_MODEL_MAX_CONTEXT=20"}, ask(), exitPrompt, []string{"prompt too long", "the limit is 20"}},
		{"over the budget", []string{"RA_MODEL_CPU_MEMORY_MIB=1"}, ask(), exitPrompt, []string{"memory budget exceeded: 3 MiB more needed (2 for the document, 2 for an answer), 0 of 1 MiB in use; raise model.cpu_memory_mib"}},
		{"limit over the model's", []string{"RA_MODEL_MAX_CONTEXT=99999999"}, ask(), exitConfig, []string{"99999999 is more than the 139264 positions"}},
		{"no model", nil, ask("--model", "nowhere"), exitModel, []string{"cannot open the model", "nowhere"}},
		{"model is a file", nil, ask("--model", write("f", "")), exitModel, []string{"is not a folder"}},
		{"no config", nil, onModel("config.json", func([]byte) []byte { return nil }), exitModel, []string{"config.json"}},
		{"unknown architecture", nil, onModel("config.json", replace("LlamaForCausalLM", "MambaForCausalLM")), exitModel, []string{"MambaForCausalLM", "LlamaForCausalLM"}},
		{"truncated weights", nil, onModel("model.safetensors", func(b []byte) []byte { return b[:len(b)-100] }), exitModel, []string{"model.safetensors"}},
		{"overlapping tensors", nil, onModel("model.safetensors", overlap), exitModel, []string{"model.safetensors", "overlap"}},
		{"missing tensor", nil, onModel("model.safetensors", replace(`"model.norm.weight"`, `"model.mron.weight"`)), exitModel, []string{"model.norm.weight"}},
		{"wrong shape", nil, onModel("config.json", replace(`"intermediate_size": 384`, `"intermediate_size": 380`)), exitModel, []string{"mlp.gate_proj.weight", "[384 192]", "[380 192]"}},
		{"unknown tokenizer step", nil, onModel("tokenizer.json", replace(`"Split"`, `"Metaspace"`)), exitModel, []string{"tokenizer.json", "Metaspace"}},
		{"unknown plugin", nil, ask("--search", "flt"), exitPlugin, []string{`"flt"`, `"flat"`}},
		{"no plugin file", nil, ask("--search", "none.wasm"), exitPlugin, []string{"none.wasm"}},
		{"not wasm", nil, ask("--search", write("text.wasm", "hello, I am a text file")), exitPlugin, []string{"wasm"}},
		{"empty module", nil, ask("--search", write("empty.wasm", "\x00asm\x01\x00\x00\x00")), exitPlugin, []string{"ra_abi_v1"}},
		{"wrong digest", nil, append([]string{"--config", write("c.toml", "version = 1\n[[plugin]]\nname = \"flat\"\nsha256 = \""+strings.Repeat("ab", 32)+"\"\n")}, ask()...), exitPlugin, []string{"sha256"}},
		{"unknown kernel type", nil, []string{"bench", "kernels", "--dtypes", "bf17"}, exitUsage, []string{`unknown type "bf17"; there are bf16, f16, f32`}},
		{"unknown kernel", nil, []string{"bench", "kernels", "--only", "scroe"}, exitUsage, []string{`no kernel's name contains "scroe"; there are score-range, `}},
		{"unknown level", nil, []string{"bench", "kernels", "--levels", "avx3"}, exitUsage, []string{`this CPU does not run level "avx3"; it runs generic`}},
		{"unknown plot", nil, []string{"bench", "kernels", "--plot", "x.pdf"}, exitUsage, []string{"cannot plot to x.pdf: its ending must be .png or .svg"}},
		{"no working set", nil, []string{"bench", "kernels", "--working-set", "0"}, exitUsage, []string{"at least 1 MiB"}},
		{"too large a working set", nil, []string{"bench", "kernels", "--working-set", "99999999"}, exitPrompt, []string{"not enough memory", "choose a smaller one"}},
		{"unknown geometry", nil, []string{"bench", "model", "--geometry", "llama3.2-1b"}, exitUsage, []string{`unknown geometry "llama3.2-1b", the nearest is "llama-3.2-1b"; there are llama-2-7b, `}},
		{"geometry over the memory", nil, []string{"bench", "model", "--geometry", "llama-3-8b", "--context", "99999999"}, exitPrompt, []string{"not enough memory: 32 layers of llama-3-8b with 99999999 tokens need 15.0 GiB of weights (bf16), ", "choose a smaller geometry or a shorter --context"}},
		{"too many layers", nil, []string{"bench", "model", "--geometry", "llama-3.2-1b", "--layers", "17"}, exitUsage, []string{"llama-3.2-1b has 16 layers, not 17"}},
		{"layers of a loaded model", nil, []string{"bench", "model", "--layers", "1"}, exitUsage, []string{"--layers needs a --geometry"}},
		{"geometry and model", nil, []string{"bench", "model", "--geometry", "yi-6b-200k", "--model", "x"}, exitUsage, []string{"exclude each other"}},
		{"context over the model's", nil, []string{"bench", "model", "--context", "999999", "--prompt", "0"}, exitPrompt, []string{"prompt too long", "the limit is 139264"}},
		{"context over the memory", nil, []string{"bench", "model", "--context", "999999999", "--prompt", "0"}, exitPrompt, []string{"not enough memory: keys and values of 999999999 tokens need ", "choose a shorter context"}},
		{"context over the budget", []string{"RA_MODEL_CPU_MEMORY_MIB=1"}, []string{"bench", "model", "--context", "4096", "--prompt", "0"}, exitPrompt, []string{"memory budget exceeded"}},
		{"unknown mode to measure", nil, []string{"bench", "model", "--attention", "half"}, exitUsage, []string{`unknown attention mode "half"`}},
		{"unknown plugin to measure", nil, []string{"bench", "model", "--search", "flt"}, exitPlugin, []string{`"flt"`, `"flat"`}},
		{"unknown parameter", nil, append([]string{"--config", write("c.toml", "version = 1\n[search.params]\nbeam = 3\n")}, ask()...), exitConfig, []string{"beam"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			code, out, stderr := ra(t, c.env, "", c.args...)
			if code != c.code || out != "" {
				t.Errorf("exit code %d, want %d; stdout %q", code, c.code, out)
			}
			for _, w := range c.want {
				if !strings.Contains(stderr, w) {
					t.Errorf("stderr %q lacks %q", stderr, w)
				}
			}
			if strings.Contains(stderr, "panic") || strings.Contains(stderr, "goroutine") {
				t.Errorf("stderr shows a crash: %q", stderr)
			}
		})
	}
}

// overlap makes the second tensor of a safetensors file begin inside the
// first, keeping the header's length.
func overlap(b []byte) []byte {
	i := bytes.Index(b, []byte(`"data_offsets":[`)) + len(`"data_offsets":[`)
	first := b[i : i+bytes.IndexByte(b[i:], ']')]
	end := first[bytes.IndexByte(first, ',')+1:]
	j := i + len(first)
	k := j + bytes.Index(b[j:], append([]byte("["), end...)) + 1
	out := bytes.Clone(b)
	out[k+len(end)-1] ^= 2
	return out
}

// A plugin that traps or loops in every search costs nothing but time and is
// reported, or ends the request, as on_failure says.
func TestOnFailure(t *testing.T) {
	t.Chdir(t.TempDir())
	args := append([]string{"generate", "-p", text, "-q", question, "--attention", "retrieval"}, small...)
	code, want, stderr := ra(t, nil, "", args...)
	if code != exitOK {
		t.Fatal(stderr)
	}
	for _, c := range []struct {
		module, onFailure string
		code              int
		out               string
		stderr            []string
	}{
		{"trapping.wasm", "fallback", exitOK, want, []string{"search plugin hostile@sha256:", "exact search answered", "searches instead; last error: ", "trap"}},
		{"looping.wasm", "fallback", exitOK, want, []string{"search plugin hostile@sha256:", "exact search answered", "fuel"}},
		{"trapping.wasm", "fail", exitPlugin, "", []string{"ra: plugin hostile@sha256:", "search layer 0 step 41: trap"}},
	} {
		config := fmt.Sprintf("version = 1\n[search]\nplugin = \"bad\"\n[[plugin]]\nname = \"bad\"\npath = %q\non_failure = %q\nlimits = { fuel = 100000 }\n",
			filepath.Join(modules, c.module), c.onFailure)
		if err := os.WriteFile("c.toml", []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, stderr := ra(t, nil, "", append([]string{"--config", "c.toml"}, args...)...)
		if code != c.code || out != c.out {
			t.Errorf("%s, %s: exit code %d, stdout %q, want %d, %q", c.module, c.onFailure, code, out, c.code, c.out)
		}
		for _, w := range c.stderr {
			if !strings.Contains(stderr, w) {
				t.Errorf("%s, %s: stderr lacks %q:\n%s", c.module, c.onFailure, w, stderr)
			}
		}
	}
}

func TestInterrupted(t *testing.T) {
	t.Chdir(t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out, err bytes.Buffer
	code := run(ctx, []string{"generate", "-p", text, "-q", question}, terminal{strings.NewReader(""), &out, &err, nil})
	if code != exitInterrupted || !strings.Contains(err.String(), "interrupted") {
		t.Errorf("exit code %d, %s", code, err.String())
	}
}

func TestDoctor(t *testing.T) {
	t.Chdir(t.TempDir())
	code, out, stderr := ra(t, nil, "", "doctor")
	for _, w := range []string{"cpu", "kernels", kernel.Level(), "gpu", "memory", "huge pages", "model", "139264 tokens", "flat", "sha256:"} {
		if code != exitOK || !strings.Contains(out, w) {
			t.Errorf("exit code %d, no %q in %s%s", code, w, out, stderr)
		}
	}
	if got := describeKernels("avx2", "why"); got != "avx2 (why)" {
		t.Errorf("kernels with a note: %q", got)
	}
	code, out, _ = ra(t, []string{"RA_SEARCH_PLUGIN=none"}, "", "doctor", "--json")
	var findings []finding
	if err := json.Unmarshal([]byte(out), &findings); err != nil || code != exitPlugin {
		t.Fatalf("exit code %d, %v in %s", code, err, out)
	}
	if last := findings[len(findings)-1]; last.OK || last.Mend == "" {
		t.Errorf("%+v", last)
	}
}

func TestConfig(t *testing.T) {
	t.Chdir(t.TempDir())
	if code, out, stderr := ra(t, []string{"RA_SERCH_PLUGIN=x"}, "", "config", "check"); code != exitOK || out == "" || !strings.Contains(stderr, "RA_SERCH_PLUGIN sets no key; the nearest that does is RA_SEARCH_PLUGIN") {
		t.Errorf("an unknown variable: exit code %d: %s", code, stderr)
	}
	if code, out, _ := ra(t, nil, "", "config", "check"); code != exitOK || out != "ok: no file: the defaults\n" {
		t.Errorf("exit code %d: %s", code, out)
	}
	code, out, _ := ra(t, []string{"RA_POLICY_PARAMS_SINK=9"}, "", "config", "print")
	if code != exitOK || !strings.Contains(out, `sink = "9"`) {
		t.Errorf("exit code %d: %s", code, out)
	}
	if err := os.WriteFile("own.toml", []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, stderr := ra(t, []string{"RA_CONFIG=own.toml"}, "", "config", "check"); code != exitOK || out != "ok: own.toml\n" {
		t.Errorf("what print wrote is refused: %d %s%s", code, out, stderr)
	}
}
