package scaffold

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrCompiler marks a compiler that is missing or failed.
var ErrCompiler = errors.New("cannot compile the plugin")

// Build compiles the plugin in dir to NAME.wasm there, NAME being the
// folder's, and returns the path: with the Go toolchain where there are Go
// files, with clang and wasm-ld where there are C files.
func Build(ctx context.Context, dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	out := filepath.Base(dir) + ".wasm"
	goFiles, _ := filepath.Glob(filepath.Join(dir, "*.go")) // the patterns are well formed
	cFiles, _ := filepath.Glob(filepath.Join(dir, "*.c"))
	var cmd *exec.Cmd
	switch {
	case len(goFiles) > 0 && len(cFiles) > 0:
		return "", fmt.Errorf("%w: %s has both Go and C files", ErrOptions, dir)
	case len(goFiles) > 0:
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
		return "", fmt.Errorf("%w: %s has no Go or C files", ErrOptions, dir)
	}
	cmd.Dir = dir
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return "", fmt.Errorf("%w: %s is not installed; %s", ErrCompiler, cmd.Args[0], install[cmd.Args[0]])
		}
		return "", fmt.Errorf("%w: %s: %w\n%s", ErrCompiler, cmd.Args[0], err, strings.TrimSpace(text.String()))
	}
	return filepath.Join(dir, out), nil
}

// install says how to get a compiler.
var install = map[string]string{
	"go":    "see https://go.dev/doc/install",
	"clang": "install clang and lld from your system's packages (Debian: apt install clang lld)",
}
