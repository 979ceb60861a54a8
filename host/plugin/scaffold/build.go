package scaffold

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrCompiler marks a compiler that is missing or failed.
var ErrCompiler = errors.New("cannot compile the plugin")

// Names in the folder of a Python plugin.
const (
	pythonMain   = "plugin.py"
	requirements = "requirements.txt"
	venvPython   = ".venv/bin/python"
)

// Build makes the plugin in dir ready to run and returns its file: NAME.wasm,
// NAME being the folder's, by the Go toolchain where there are Go files, by
// clang and wasm-ld where there are C files. Go files that import the SDK for
// processes become the executable NAME. For Python, a virtual environment
// .venv is made and the requirements are installed in it.
func Build(ctx context.Context, dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(dir, pythonMain)); err == nil {
		return filepath.Join(dir, pythonMain), installPython(ctx, dir)
	}
	out := filepath.Base(dir) + ".wasm"
	goFiles, _ := filepath.Glob(filepath.Join(dir, "*.go")) // the patterns are well formed
	cFiles, _ := filepath.Glob(filepath.Join(dir, "*.c"))
	var cmd *exec.Cmd
	switch {
	case len(goFiles) > 0 && len(cFiles) > 0:
		return "", fmt.Errorf("%w: %s has both Go and C files", ErrOptions, dir)
	case len(goFiles) > 0:
		isProcess, err := importsProcess(goFiles)
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrCompiler, err)
		}
		if isProcess {
			out = filepath.Base(dir)
			cmd = exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", out, ".")
			cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
			break
		}
		// -trimpath and no build id: the same source makes the same bytes.
		cmd = exec.CommandContext(ctx, "go", "build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, ".")
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOWASM=", "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
	case len(cFiles) > 0:
		args := []string{"--target=wasm32", "-O3", "-mbulk-memory", "-nostdlib", "-Wall", "-I.", "-Wl,--no-entry", "-Wl,-z,stack-size=65536", "-o", out}
		for _, f := range cFiles {
			args = append(args, filepath.Base(f))
		}
		cmd = exec.CommandContext(ctx, "clang", args...)
	default:
		return "", fmt.Errorf("%w: %s has no Go or C files and no plugin.py", ErrOptions, dir)
	}
	return filepath.Join(dir, out), run(cmd, dir)
}

// run runs a tool in dir. Its output is part of the error.
func run(cmd *exec.Cmd, dir string) error {
	cmd.Dir = dir
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("%w: %s is not installed; %s", ErrCompiler, cmd.Args[0], install[cmd.Args[0]])
		}
		return fmt.Errorf("%w: %s: %w\n%s", ErrCompiler, cmd.Args[0], err, strings.TrimSpace(text.String()))
	}
	return nil
}

// importsProcess reports whether one of the files imports the SDK for
// processes.
func importsProcess(files []string) (bool, error) {
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return false, err
		}
		for _, i := range f.Imports {
			if i.Path.Value == strconv.Quote(module+"/sdk/process") {
				return true, nil
			}
		}
	}
	return false, nil
}

// installPython makes the virtual environment of a plugin, or brings it up to
// its requirements.
func installPython(ctx context.Context, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, venvPython)); err != nil {
		if err := run(exec.CommandContext(ctx, "python3", "-m", "venv", ".venv"), dir); err != nil {
			return err
		}
	}
	return run(exec.CommandContext(ctx, filepath.Join(dir, venvPython), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements), dir)
}

// install says how to get a compiler.
var install = map[string]string{
	"python3": "see https://www.python.org/downloads",
	"go":      "see https://go.dev/doc/install",
	"clang":   "install clang and lld from your system's packages (Debian: apt install clang lld)",
}
