package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Every word is what the GNU assembler makes of the mnemonic beside it, and
// belongs to ARMv8.0, sdot excepted.
func TestWordsAreTheirMnemonics(t *testing.T) {
	for _, tool := range []string{"aarch64-linux-gnu-as", "aarch64-linux-gnu-objcopy"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s (GNU binutils for aarch64) is not installed", tool)
		}
	}
	var words []uint32
	var mnemonics []string
	var source strings.Builder
	for _, m := range regexp.MustCompile(`(?m)^\tWORD\t\$0x([0-9a-f]{8}) // (.*)$`).FindAllStringSubmatch(kernels().assembly(), -1) {
		w, err := strconv.ParseUint(m[1], 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		words, mnemonics = append(words, uint32(w)), append(mnemonics, m[2])
		if strings.HasPrefix(m[2], "sdot ") {
			m[2] = ".arch armv8.2-a+dotprod\n" + m[2] + "\n.arch armv8-a"
		}
		source.WriteString(m[2] + "\n")
	}
	if want := strings.Count(kernels().assembly(), "WORD"); len(words) != want || want == 0 {
		t.Fatalf("%d of %d words have a mnemonic", len(words), want)
	}
	dir := t.TempDir()
	file, object, code := filepath.Join(dir, "words.s"), filepath.Join(dir, "words.o"), filepath.Join(dir, "words")
	if err := os.WriteFile(file, []byte(source.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "aarch64-linux-gnu-as", "-march=armv8-a", "-o", object, file)
	run(t, "aarch64-linux-gnu-objcopy", "-O", "binary", "-j", ".text", object, code)
	want, err := os.ReadFile(code)
	if err != nil {
		t.Fatal(err)
	}
	if len(want) != 4*len(words) {
		t.Fatalf("%d bytes of code for %d words", len(want), len(words))
	}
	for i, w := range words {
		if v := binary.LittleEndian.Uint32(want[4*i:]); w != v {
			t.Errorf("%s: %#08x, want %#08x", mnemonics[i], w, v)
		}
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("%s: %w\n%s", name, err, out))
	}
}
