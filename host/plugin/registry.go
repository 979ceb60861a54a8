package plugin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/retrievalattention/ra/plugins/dist"
)

// maxModule bounds the size of a module file.
const maxModule = 64 << 20

const digestPrefix = "sha256:"

// Digest returns the digest of a module, "sha256:...".
func Digest(module []byte) string {
	sum := sha256.Sum256(module)
	return digestPrefix + hex.EncodeToString(sum[:])
}

// Builtins returns the names of the plugins that the host carries, sorted.
func Builtins() []string {
	files, _ := fs.Glob(dist.Files, "*.wasm") // the pattern is well formed
	for i, f := range files {
		files[i] = strings.TrimSuffix(f, ".wasm")
	}
	return files
}

// builtin returns the module of a built-in plugin, checked against the sums
// that it was committed with.
func builtin(name string) ([]byte, error) {
	module, err := dist.Files.ReadFile(name + ".wasm")
	if errors.Is(err, fs.ErrNotExist) {
		names := Builtins()
		if n := nearest(name, names); n != "" {
			return nil, fmt.Errorf("%w: no built-in plugin %q; did you mean %q?", ErrUnknown, name, n)
		}
		return nil, fmt.Errorf("%w: no built-in plugin %q; there is %s (give a path for another)", ErrUnknown, name, strings.Join(names, ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	sums, err := dist.Files.ReadFile("SHA256SUMS")
	if err != nil {
		return nil, err
	}
	line := strings.TrimPrefix(Digest(module), digestPrefix) + "  " + name + ".wasm\n"
	if !bytes.Contains(sums, []byte(line)) {
		return nil, fmt.Errorf("%w: the built-in %s.wasm is not the one listed in plugins/dist/SHA256SUMS; run plugins/build.sh", ErrDigest, name)
	}
	return module, nil
}

// read returns the module that o names and a label for messages.
func (o *Options) read() (module []byte, label string, err error) {
	switch {
	case o.Bytes != nil && o.Path != "":
		return nil, "", errors.New("both path and bytes are set")
	case o.Bytes != nil:
		module, label = o.Bytes, o.Name
		if label == "" {
			label = "(bytes)"
		}
	case o.Path != "":
		if label = o.Name; label == "" {
			label = o.Path
		}
		if module, err = readFile(o.Path); err != nil {
			return nil, label, err
		}
	case o.Name != "":
		label = o.Name
		if module, err = builtin(o.Name); err != nil {
			return nil, label, err
		}
	default:
		return nil, "", errors.New("neither name, path nor bytes is set")
	}
	if len(module) > maxModule {
		return nil, label, fmt.Errorf("%w: more than %d MiB", ErrModule, maxModule>>20)
	}
	if o.SHA256 != "" {
		want := digestPrefix + strings.ToLower(strings.TrimPrefix(o.SHA256, digestPrefix))
		if got := Digest(module); got != want {
			return nil, label, fmt.Errorf("%w: the file is %s, pinned is %s", ErrDigest, got, want)
		}
	}
	return module, label, nil
}

// readFile reads at most one byte more than a module may have.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxModule+1))
}
