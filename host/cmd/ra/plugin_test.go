package main

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/retrievalattention/ra/host/plugin"
	"github.com/retrievalattention/ra/sdk/conformance"
)

// TestWalkthrough runs the commands of docs/write-a-plugin.md, each section
// in a folder of its own.
func TestWalkthrough(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles plugins")
	}
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", filepath.Join(bin, "ra"), ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	path := bin + string(os.PathListSeparator) + os.Getenv("PATH")
	sections := commandsOf(t, "../../../docs/write-a-plugin.md")
	if len(sections) < 3 {
		t.Fatalf("%d sections with commands", len(sections))
	}
	for _, s := range sections {
		t.Run(s.title, func(t *testing.T) {
			if strings.Contains(s.title, "In C") {
				for _, tool := range []string{"clang", "wasm-ld"} {
					if _, err := exec.LookPath(tool); err != nil {
						t.Skipf("%s is not installed", tool)
					}
				}
			}
			proxy := "off" // no network: what a plugin needs is in its folder
			switch s.title {
			case "As a Go process":
				proxy = goEnv(t, "GOPROXY")
			case "In Python":
				needsPython(t)
			}
			cmd := exec.Command("sh", "-exc", strings.Join(s.commands, "\n"))
			cmd.Dir = t.TempDir()
			cmd.Env = append(os.Environ(), "PATH="+path, "GOFLAGS=-mod=mod", "GOPROXY="+proxy, "GOWORK=off")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// needsPython skips the test where there is no Python with venv or no package
// registry (nor a cached package) to install from.
func needsPython(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3, which is not installed")
	}
	if out, err := exec.Command("python3", "-c", "import ensurepip, venv").CombinedOutput(); err != nil {
		t.Skipf("needs python3 with venv and pip: %v: %s", err, out)
	}
	pip := exec.Command("python3", "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", "-d", t.TempDir(), "protobuf>=5.26")
	if out, err := pip.CombinedOutput(); err != nil {
		t.Skipf("needs a Python package registry: %v: %s", err, out)
	}
}

type section struct {
	title    string
	commands []string
}

// commandsOf returns the lines of a document that begin with "    $ ", by
// heading.
func commandsOf(t *testing.T, file string) []section {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var sections []section
	title := ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if h, ok := strings.CutPrefix(lines.Text(), "## "); ok {
			title = h
		}
		if c, ok := strings.CutPrefix(lines.Text(), "    $ "); ok {
			if len(sections) == 0 || sections[len(sections)-1].title != title {
				sections = append(sections, section{title: title})
			}
			s := &sections[len(sections)-1]
			s.commands = append(s.commands, c)
		}
	}
	return sections
}

// modules is the folder of broken modules.
var modules, _ = filepath.Abs("../../plugin/testdata") // fails only where there is no working directory

func TestPluginCommands(t *testing.T) {
	t.Chdir(t.TempDir())
	if code, out, stderr := ra(t, nil, "", "plugin", "list"); code != exitOK || !strings.Contains(out, "flat        search  built in  sha256:") || !strings.Contains(out, "sinkwindow  policy  built in  sha256:") {
		t.Errorf("list: %d %s%s", code, out, stderr)
	}
	code, out, _ := ra(t, nil, "", "plugin", "inspect", "flat", "--json")
	var i plugin.Inspection
	if err := json.Unmarshal([]byte(out), &i); err != nil || code != exitOK || i.Name != "flat" || i.ABI != "ra_abi_v1" || len(i.Parameters) != 1 || i.Bytes < 1000 || i.MemoryBytes < 65536 || len(i.Imports) < 5 {
		t.Errorf("inspect: %d %v %+v", code, err, i)
	}
	if code, out, _ := ra(t, nil, "", "plugin", "inspect", "sinkwindow"); code != exitOK || !strings.Contains(out, "parameter    window = 512  an integer from 1 to 1048576; last tokens that stay in the static set") {
		t.Errorf("inspect: %d %s", code, out)
	}
	if code, _, stderr := ra(t, nil, "", "plugin", "validate", "flt"); code != exitPlugin || !strings.Contains(stderr, `no built-in plugin "flt"; did you mean "flat"?`) {
		t.Errorf("validate: %d %s", code, stderr)
	}
	code, out, stderr := ra(t, nil, "", "plugin", "test", "flat", "--json", "--junit", "r.xml", "--min-recall", "1")
	var r conformance.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitOK || !r.Passed() || len(r.Results) < 10 {
		t.Errorf("test: %d %v %s%s", code, err, out, stderr)
	}
	if text, err := os.ReadFile("r.xml"); err != nil || !strings.Contains(string(text), `<testcase name="recall" classname="conformance"`) {
		t.Errorf("junit: %v\n%s", err, text)
	}
	if code, out, stderr := ra(t, nil, "", "plugin", "test", filepath.Join(modules, "trapping.wasm")); code != exitPlugin || !strings.Contains(out, "FAILED") || !strings.Contains(stderr, "not conformant: ") {
		t.Errorf("test of a broken plugin: %d %s%s", code, out, stderr)
	}
	for name, args := range map[string][]string{
		"the name \"X\"":         {"new", "X"},
		"the language \"cobol\"": {"new", "x", "--lang", "cobol"},
		"the kind \"cache\"":     {"new", "x", "--kind", "cache"},
		"exists; choose another": {"new", "x"},
		"has no Go or C files":   {"build", "x"},
	} {
		if err := os.MkdirAll("x", 0o777); err != nil {
			t.Fatal(err)
		}
		if code, _, stderr := ra(t, nil, "", append([]string{"plugin"}, args...)...); code != exitUsage || !strings.Contains(stderr, name) {
			t.Errorf("%v: %d %s", args, code, stderr)
		}
	}
}

// A lock file refuses plugins that changed or that it does not know.
func TestLock(t *testing.T) {
	t.Chdir(t.TempDir())
	copyOf := func(data, name string) {
		t.Helper()
		module, err := os.ReadFile(filepath.Join(modules, data))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, module, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	copyOf("trapping.wasm", "mine.wasm")
	if err := os.WriteFile("raconfig.toml", []byte("version = 1\n[search]\nplugin = \"mine\"\n[[plugin]]\nname = \"mine\"\npath = \"mine.wasm\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, stderr := ra(t, nil, "", "plugin", "lock"); code != exitOK || out != "ra.lock: 3 plugins\n" {
		t.Fatalf("%d %s%s", code, out, stderr)
	}
	if code, _, stderr := ra(t, nil, "", "config", "check"); code != exitOK {
		t.Errorf("what was locked: %d %s", code, stderr)
	}
	copyOf("looping.wasm", "mine.wasm")
	if code, _, stderr := ra(t, nil, "", "config", "check"); code != exitPlugin || !strings.Contains(stderr, "digest mismatch") || !strings.Contains(stderr, "in ra.lock; if the change is wanted, run 'ra plugin lock'") {
		t.Errorf("a changed plugin: %d %s", code, stderr)
	}
	if code, _, stderr := ra(t, []string{"RA_SEARCH_PLUGIN=other.wasm"}, "", "config", "check"); code != exitConfig || !strings.Contains(stderr, `ra.lock has no entry for the plugin "other"; run 'ra plugin lock' if it is to be used`) {
		t.Errorf("a plugin that is not locked: %d %s", code, stderr)
	}
}
