package scaffold

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/retrievalattention/ra/sdk"
)

// A scaffolded Go process is built with the host's versions of its modules.
func TestModules(t *testing.T) {
	for file, own := range map[string]string{"modules/require.txt": "go.mod", "modules/sums.txt": "go.sum"} {
		embedded, err := sdk.Files.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile("../../../" + own)
		if err != nil {
			t.Fatal(err)
		}
		var have []string
		for line := range strings.Lines(string(text)) {
			have = append(have, strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), "// indirect")))
		}
		for line := range strings.Lines(string(embedded)) {
			if line = strings.TrimSpace(line); !slices.Contains(have, line) {
				t.Errorf("sdk/%s: %q is not in %s", file, line, own)
			}
		}
	}
}

func TestProcessPolicy(t *testing.T) {
	dir := t.TempDir()
	for _, lang := range []string{"python", "go-process"} {
		if _, err := New(Options{Name: "x", Lang: lang, Kind: "policy", Dir: dir}); !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), "choose the language go or c") {
			t.Errorf("%s: %v", lang, err)
		}
	}
}
