package plugin

import (
	"bytes"
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the modules under testdata")

// The modules that tests of other packages use are what the assembler makes.
func TestStoredModules(t *testing.T) {
	for file, want := range map[string][]byte{
		"testdata/trapping.wasm": newGuest().search(unreachable).module(),
		"testdata/looping.wasm":  newGuest().search(forever()).module(),
	} {
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not current (%v); go test ./host/plugin -run TestStoredModules -update writes it", file, err)
		}
	}
}
