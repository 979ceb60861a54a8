package tokenizer

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
)

func readGzip(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func goldenStrings(t testing.TB) (texts []string, digest string) {
	t.Helper()
	js := readGzip(t, "strings.json.gz")
	if err := json.Unmarshal(js, &texts); err != nil {
		t.Fatal(err)
	}
	return texts, hexSum(js)
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

type goldenIDs struct {
	Tokenizer string          `json:"tokenizer_sha256"`
	Strings   string          `json:"strings_sha256"`
	IDs       [][]int32       `json:"ids"`
	Plain     map[int][]int32 `json:"plain"`
}

func loadTest(t testing.TB, name string) *Tokenizer {
	t.Helper()
	tok, err := Load(readGzip(t, name+".tokenizer.json.gz"))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// newerUnicode says whether a text has letters or numbers that Go's tables, and so regexp2, lack.
func newerUnicode(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool {
		return unicode.In(r, newLetters, newNumbers) && !unicode.In(r, unicode.L, unicode.N)
	}) >= 0
}

func checkGolden(t *testing.T, js []byte, golden, hint string) {
	tok, err := Load(js)
	if err != nil {
		t.Fatal(err)
	}
	var g goldenIDs
	if err := json.Unmarshal(readGzip(t, golden), &g); err != nil {
		t.Fatal(err)
	}
	texts, digest := goldenStrings(t)
	if g.Tokenizer != hexSum(js) || g.Strings != digest {
		t.Fatalf("%s was made with another tokenizer.json or other strings; make it again: %s", golden, hint)
	}
	if len(texts) != 1000 || len(g.IDs) != len(texts) {
		t.Fatalf("%d strings and %d golden sequences, want 1000", len(texts), len(g.IDs))
	}
	usesRegexp2 := slices.ContainsFunc(tok.stages, func(s stage) bool { return s.regex != nil })
	lossless := !tok.nfc && tok.model.unkID < 0 && !slices.ContainsFunc(tok.stages, func(s stage) bool { return s.prefix })
	bad := 0
	for i, text := range texts {
		if usesRegexp2 && newerUnicode(text) {
			continue
		}
		got, err := tok.Encode(text, true)
		if err != nil {
			t.Fatalf("string %d %q: %v", i, text, err)
		}
		if !slices.Equal(got, g.IDs[i]) {
			if bad++; bad <= 5 {
				t.Errorf("string %d %q:\ngot  %v\nwant %v", i, text, got, g.IDs[i])
			}
		}
		want, ok := g.Plain[i]
		if !ok {
			want = g.IDs[i]
		}
		got, err = tok.EncodeWith(text, Options{AddSpecial: true, PlainSpecial: true})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("string %d %q with special tokens as text: %v\ngot  %v\nwant %v", i, text, err, got, want)
		}
		if !lossless {
			continue
		}
		plain, err := tok.Encode(text, false)
		if err != nil {
			t.Fatal(err)
		}
		if back := tok.Decode(plain, false); back != text {
			t.Errorf("string %d: %q came back as %q", i, text, back)
		}
	}
	if bad > 0 {
		t.Errorf("%d of %d strings differ", bad, len(texts))
	}
}

// TestGolden compares with Hugging Face tokenizers; testdata/golden.py tells how and with which
// tokenizers.
func TestGolden(t *testing.T) {
	for _, name := range []string{"digits1", "digits3", "gpt2", "cased"} {
		t.Run(name, func(t *testing.T) {
			checkGolden(t, readGzip(t, name+".tokenizer.json.gz"), name+".ids.json.gz", "python testdata/golden.py")
		})
	}
}

// TestGoldenReference does the same for the tokenizer of the reference model.
func TestGoldenReference(t *testing.T) {
	const (
		root   = "../../../"
		model  = "examples/reference-model/tokenizer.json"
		golden = "reference.ids.json.gz"
		hint   = "from the root of the repository: python host/model/tokenizer/testdata/golden.py --tokenizer " + model + " --out host/model/tokenizer/testdata/" + golden
	)
	js, err := os.ReadFile(root + model)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("there is no reference model")
	}
	if err != nil {
		t.Fatal(err)
	}
	checkGolden(t, js, golden, hint)
}

// TestScannerAgainstRegexp2 cuts the golden strings with both engines.
func TestScannerAgainstRegexp2(t *testing.T) {
	texts, _ := goldenStrings(t)
	texts = append(texts, strings.Join(texts, ""), "a\xffb", "\xf0\x9f", " \xc3 ", "'\xe2\x80s")
	for source, sc := range scanners {
		p, err := compilePattern(source)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range texts {
			if newerUnicode(text) {
				continue
			}
			compareEngines(t, sc, p, text)
		}
	}
}

func compareEngines(t *testing.T, sc scanner, p *pattern, text string) {
	t.Helper()
	at := 0
	err := p.split(text, func(word string) error {
		end := sc.next(text, at)
		if text[at:end] != word {
			t.Fatalf("pattern %s at byte %d of %q: scanner %q, regexp2 %q", p.source, at, text, text[at:end], word)
		}
		at = end
		return nil
	})
	if err != nil || at != len(text) {
		t.Fatalf("pattern %s: stopped at byte %d of %q: %v", p.source, at, text, err)
	}
}

func FuzzScanner(f *testing.F) {
	texts, _ := goldenStrings(f)
	for _, s := range texts[:300] {
		f.Add(s)
	}
	compiled := make(map[string]*pattern)
	for source := range scanners {
		p, err := compilePattern(source)
		if err != nil {
			f.Fatal(err)
		}
		compiled[source] = p
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<12 || newerUnicode(text) {
			return
		}
		for source, sc := range scanners {
			compareEngines(t, sc, compiled[source], text)
		}
	})
}
