// Package scaffold begins plugins and builds them: a folder with a working
// plugin, its test and all of the SDK that it needs, and the call of the
// compiler that makes a module of it.
package scaffold

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	examples "github.com/retrievalattention/ra/examples/plugins"
	"github.com/retrievalattention/ra/sdk"
)

// ErrOptions marks what a plugin cannot be begun or built from.
var ErrOptions = errors.New("invalid plugin options")

// Options say what to begin.
type Options struct {
	Name string // of the plugin and its folder
	Lang string // one of Langs
	Kind string // one of Kinds
	Dir  string // that the folder is made in; empty: the working directory
}

// Langs are the languages that plugins can be begun in.
func Langs() []string { return []string{"go", "c", "python", "go-process"} }

// IsProcess reports whether plugins in lang run as processes. These are
// configured by a [[plugin]] entry in their folder's raconfig.toml.
func IsProcess(lang string) bool { return lang == "python" || lang == "go-process" }

// Kinds are the kinds of plugins.
func Kinds() []string { return []string{"search", "policy"} }

// example is the folder of examples that a new plugin is a copy of.
func (o *Options) example() string {
	return o.Lang + map[string]string{"search": "-sample", "policy": "-policy"}[o.Kind]
}

var validName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}$`)

// New writes the folder of a new plugin and returns its path. It must not
// exist.
func New(o Options) (dir string, err error) {
	switch {
	case !validName.MatchString(o.Name):
		return "", fmt.Errorf("%w: the name %q; use lower-case letters, digits, - and _, a letter first", ErrOptions, o.Name)
	case !slices.Contains(Langs(), o.Lang):
		return "", fmt.Errorf("%w: the language %q; it is one of %s", ErrOptions, o.Lang, strings.Join(Langs(), ", "))
	case !slices.Contains(Kinds(), o.Kind):
		return "", fmt.Errorf("%w: the kind %q; it is one of %s", ErrOptions, o.Kind, strings.Join(Kinds(), ", "))
	case IsProcess(o.Lang) && o.Kind != "search":
		return "", fmt.Errorf("%w: a process cannot be a %s plugin; choose the language go or c", ErrOptions, o.Kind)
	}
	dir = filepath.Join(o.Dir, o.Name)
	if err := os.Mkdir(dir, 0o777); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("%w: %s exists; choose another name or remove it", ErrOptions, dir)
		}
		return "", err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	example := o.example()
	rename := strings.NewReplacer(example, o.Name)
	if err := copyTree(examples.Files, example, dir, rename.Replace); err != nil {
		return "", err
	}
	switch o.Lang {
	case "go":
		return dir, o.goModule(dir)
	case "go-process":
		if err := o.goModule(dir); err != nil {
			return "", err
		}
		return dir, o.configure(dir, fmt.Sprintf("path = %q\n", o.Name))
	case "python":
		if err := o.pythonPackage(dir); err != nil {
			return "", err
		}
		return dir, o.configure(dir, fmt.Sprintf("path = %q\ninterpreter = %q\n", pythonMain, venvPython))
	default:
		return dir, copyFile(sdk.Files, "c/ra.h", filepath.Join(dir, "ra.h"), nil)
	}
}

const module = "github.com/retrievalattention/ra"

// configure writes raconfig.toml, which declares the plugin.
func (o *Options) configure(dir, how string) error {
	text := fmt.Sprintf("version = 1\n\n[[plugin]]\nname = %q\nruntime = \"process\"\n%sargs = []\ngrants = [\"keys\"]  # what it may see\n", o.Name, how)
	return os.WriteFile(filepath.Join(dir, "raconfig.toml"), []byte(text), 0o666)
}

// pythonPackage copies the SDK and lists the packages that it needs.
func (o *Options) pythonPackage(dir string) error {
	if err := copyTree(sdk.Files, "python/ra_plugin", filepath.Join(dir, "ra_plugin"), nil); err != nil {
		return err
	}
	var file struct {
		Project struct{ Dependencies []string }
	}
	if _, err := toml.DecodeFS(sdk.Files, "python/pyproject.toml", &file); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, requirements), []byte(strings.Join(file.Project.Dependencies, "\n")+"\n"), 0o666)
}

// goModule writes go.mod and a copy of the SDK, to which it points. The SDK
// for processes needs other modules: their versions are those of the host, and
// their checksums are written as well.
func (o *Options) goModule(dir string) error {
	vendored := filepath.Join(dir, "third_party", "ra")
	folders, require := []string{"go", "abi"}, ""
	if o.Lang == "go-process" {
		folders = append(folders, "process")
		list, err := fs.ReadFile(sdk.Files, "modules/require.txt")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(list)) {
			require += "\t" + strings.TrimSpace(line) + " // indirect\n"
		}
		require = "\nrequire (\n" + require + ")\n"
		if err := copyFile(sdk.Files, "modules/sums.txt", filepath.Join(dir, "go.sum"), nil); err != nil {
			return err
		}
	}
	for _, folder := range folders {
		if err := copyTree(sdk.Files, folder, filepath.Join(vendored, "sdk", folder), nil); err != nil {
			return err
		}
	}
	if err := copyFile(sdk.Files, "LICENSE", filepath.Join(vendored, "LICENSE"), nil); err != nil {
		return err
	}
	files := map[string]string{
		filepath.Join(dir, "go.mod"):      fmt.Sprintf("module %s\n\ngo 1.26.0\n\nrequire %s v0.0.0\n%s\n// The SDK lies beside the plugin.\nreplace %s => ./third_party/ra\n", o.Name, module, require, module),
		filepath.Join(vendored, "go.mod"): fmt.Sprintf("module %s\n\ngo 1.26.0\n%s", module, strings.ReplaceAll(require, " // indirect", "")),
	}
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			return err
		}
	}
	return nil
}

// copyTree copies a folder, tests of the SDK left out, through change.
func copyTree(from fs.FS, folder, to string, change func(string) string) error {
	return fs.WalkDir(from, folder, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if change == nil && strings.HasSuffix(name, "_test.go") {
			return nil
		}
		return copyFile(from, name, filepath.Join(to, filepath.FromSlash(strings.TrimPrefix(name, folder+"/"))), change)
	})
}

func copyFile(from fs.FS, name, to string, change func(string) string) error {
	data, err := fs.ReadFile(from, path.Clean(name))
	if err != nil {
		return err
	}
	if change != nil {
		data = []byte(change(string(data)))
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o666)
}
