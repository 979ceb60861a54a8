package plugin

import (
	"context"
	"os"
	"testing"

	"github.com/tetratelabs/wazero"
	"go.uber.org/goleak"
)

// moduleCache keeps compiled modules for all tests of the binary, in
// TestCacheDir.
var (
	moduleCache  wazero.CompilationCache
	TestCacheDir string
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "ra-plugin-test")
	if err == nil {
		TestCacheDir = dir
		moduleCache, err = wazero.NewCompilationCacheWithDir(dir)
	}
	if err != nil {
		panic(err)
	}
	code := m.Run()
	moduleCache.Close(context.Background())
	os.RemoveAll(dir)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			code = 1
		}
	}
	os.Exit(code)
}
