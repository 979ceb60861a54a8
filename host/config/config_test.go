package config

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// A golden file holds a configuration, a line of dashes, and what it resolves
// to: the printed configuration or the error.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			const cut = "\n----\n"
			input, want, _ := strings.Cut(string(data), cut)
			dir := t.TempDir()
			file := filepath.Join(dir, "raconfig.toml")
			if err := os.WriteFile(file, []byte(input), 0o600); err != nil {
				t.Fatal(err)
			}
			var environ []string
			for _, line := range strings.Split(input, "\n") {
				if kv, ok := strings.CutPrefix(line, "# env: "); ok {
					environ = append(environ, kv)
				}
			}
			r, err := Load(Source{File: file, Environ: environ})
			var got string
			if err != nil {
				if !errors.Is(err, ErrInvalid) {
					t.Errorf("error does not wrap ErrInvalid: %v", err)
				}
				got = "error: " + err.Error() + "\n"
			} else {
				got = r.Print()
				for _, note := range r.Ignored {
					got += "note: " + note + "\n"
				}
			}
			got = strings.ReplaceAll(got, dir+string(filepath.Separator), "")
			if *update {
				if err := os.WriteFile(name, []byte(input+cut+got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// The file at the root of the repository names every key with its default.
func TestShippedFileIsTheDefault(t *testing.T) {
	r, err := Load(Source{File: "../../raconfig.toml"})
	if err != nil {
		t.Fatal(err)
	}
	r.Search.Params, r.Policy.Params = nil, nil // empty tables there
	if want := Default(); !reflect.DeepEqual(r.Config, want) {
		t.Errorf("raconfig.toml resolves to\n%+v\nwant the defaults\n%+v", r.Config, want)
	}
	for _, f := range r.fields() {
		if r.Origin(f.key) != FromFile {
			t.Errorf("raconfig.toml does not show the key %s", f.key)
		}
	}
	text, err := os.ReadFile("../../raconfig.toml")
	if err != nil {
		t.Fatal(err)
	}
	// Its example of a [[plugin]] is valid and names every key, too.
	_, example, _ := strings.Cut(string(text), "# [[plugin]]\n")
	example = "version = 1\n[[plugin]]\n" + strings.ReplaceAll("\n"+example, "\n# ", "\n")
	file := filepath.Join(t.TempDir(), "raconfig.toml")
	if err := os.WriteFile(file, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(Source{File: file}); err != nil {
		t.Errorf("the example of a plugin: %v", err)
	}
	for _, f := range scalars("", reflect.ValueOf(Plugin{})) {
		key := f.key[strings.LastIndexByte(f.key, '.')+1:]
		if !strings.Contains(example, key+" = ") {
			t.Errorf("the example of a plugin does not show %s", f.key)
		}
	}
}

func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.toml")
	text := "version = 1\n[policy.params]\nsink = 1\nwindow = 1\n[attention.budget]\ntop_k = 1\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Load(Source{
		File: file, Environ: []string{"HOME=/", "RA_POLICY_PARAMS_WINDOW=2", "RA_ATTENTION_BUDGET_TOP_K=2"},
		Flags: map[string]string{"attention.budget.top_k": "3"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if p := r.Policy.Params; !reflect.DeepEqual(p, map[string]any{"sink": int64(1), "window": "2"}) {
		t.Errorf("policy.params = %v", p)
	}
	for key, want := range map[string]struct {
		value  int
		origin Origin
	}{
		"attention.budget.top_k": {3, FromFlag},
		"generate.max_tokens":    {64, FromDefault},
	} {
		for _, f := range r.fields() {
			if f.key == key && (int(f.value.Int()) != want.value || r.Origin(key) != want.origin) {
				t.Errorf("%s = %v from %s, want %d from %s", key, f.value, r.Origin(key), want.value, want.origin)
			}
		}
	}
}

func TestFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	r, err := Load(Source{})
	if err != nil || r.File != "" || !reflect.DeepEqual(r.Config, Default()) {
		t.Errorf("without a file: %+v, %v", r, err)
	}
	if _, err := Load(Source{File: "missing.toml"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a named file that is missing: %v", err)
	}
	if err := os.WriteFile(FileName, []byte("version = 1\n[search]\nplugin = \"x\"\n[[plugin]]\nname = \"x\"\npath = \"sub/x.wasm\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err = Load(Source{}); err != nil || r.File != FileName || r.Plugin("x").Path != filepath.Join("sub", "x.wasm") {
		t.Errorf("file in the working directory: %+v, %v", r, err)
	}
	if p := r.Plugin("dir/own.wasm"); p.Name != "own" || p.Path != "dir/own.wasm" || p.OnFailure != "fallback" {
		t.Errorf("a plugin named by its file: %+v", p)
	}
}

// What Print writes is read back as the same configuration.
func TestPrintRoundTrip(t *testing.T) {
	r := &Resolved{Config: Default()}
	r.Model.Path = "a \"quoted\"\tpath\\ü"
	r.Search.Params = map[string]any{"bits": int64(2), "name": "x", "deep": map[string]any{"y": 1.5}}
	r.Plugins = []Plugin{{Name: "p", Kind: "search", Runtime: "wasm", OnFailure: "fail", Limits: Limits{SearchTimeout: 1500 * time.Millisecond, Fuel: 5}}}
	var back Config
	if _, err := toml.Decode(r.Print(), &back); err != nil {
		t.Fatalf("%v in\n%s", err, r.Print())
	}
	if !reflect.DeepEqual(back, r.Config) {
		t.Errorf("read back\n%+v\nwant\n%+v\nfrom\n%s", back, r.Config, r.Print())
	}
}

// Any text gives a configuration or an error that says so, never a panic.
func FuzzLoad(f *testing.F) {
	shipped, err := os.ReadFile("../../raconfig.toml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(shipped))
	f.Add("version = 1\n[[plugin]]\nnme = 1\n")
	f.Add("version = 1\n[atention]\nbudget.topk = {a = 1}\n\"se arch\".x = []")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(dir, "c.toml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Load(Source{File: file})
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("error does not wrap ErrInvalid: %v", err)
			}
			return
		}
		var back Config
		if _, err := toml.Decode(r.Print(), &back); err != nil {
			t.Errorf("printed configuration is not readable: %v\n%s", err, r.Print())
		}
	})
}
