package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dlclark/regexp2/v2"
)

// tiny is a tokenizer.json with all bytes, the merges "a b" and "ab c", and one special token.
// Sections can be replaced, with a dotted path.
func tiny(t testing.TB, changes map[string]string) []byte {
	t.Helper()
	vocab := make(map[string]int32)
	for b := range 256 {
		vocab[string(byteToRune[b])] = int32(b)
	}
	vocab["ab"], vocab["abc"] = 256, 257
	doc := map[string]any{
		"version": "1.0", "truncation": nil, "padding": nil, "normalizer": nil,
		"added_tokens":   []any{map[string]any{"id": 258, "content": "<eot>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}},
		"pre_tokenizer":  map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
		"post_processor": nil,
		"decoder":        map[string]any{"type": "ByteLevel"},
		"model": map[string]any{"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
			"fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": []any{[]string{"a", "b"}, []string{"ab", "c"}}},
	}
	for path, value := range changes {
		at := doc
		keys := strings.Split(path, ".")
		for _, k := range keys[:len(keys)-1] {
			at = at[k].(map[string]any)
		}
		if value == "" {
			delete(at, keys[len(keys)-1])
		} else {
			at[keys[len(keys)-1]] = json.RawMessage(value)
		}
	}
	js, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func mustLoad(t testing.TB, js []byte) *Tokenizer {
	t.Helper()
	tok, err := Load(js)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestLoadErrors(t *testing.T) {
	seq := func(steps string) string { return `{"type":"Sequence","pretokenizers":[` + steps + `]}` }
	split := func(rest string) string { return `{"type":"Split",` + rest + `}` }
	const bl = `{"type":"ByteLevel"}`
	added := func(rest string) string { return `[{"id":300,"content":"x1",` + rest + `}]` }
	tests := []struct {
		path, value string
		want        string
		is          error
	}{
		{"version", `"2.0"`, `version "2.0" is not supported; supported: "1.0"`, ErrUnsupported},
		{"truncation", `{"max_length":512}`, `truncation is not supported, since it would change prompts silently; set it to null`, ErrUnsupported},
		{"padding", `{"strategy":"BatchLongest"}`, `padding is not supported, since it would change prompts silently; set it to null`, ErrUnsupported},
		{"extra", `1`, `the field "extra" is not supported`, ErrUnsupported},
		{"normalizer", `{"type":"NFKC"}`, `normalizer.type "NFKC" is not supported; supported: NFC, null`, ErrUnsupported},
		{"normalizer", `{"type":"Sequence","normalizers":[]}`, `normalizer.type "Sequence" is not supported; supported: NFC, null`, ErrUnsupported},
		{"normalizer", `[]`, `normalizer: must be an object`, ErrFormat},
		{"pre_tokenizer", ``, `pre_tokenizer null is not supported: a ByteLevel step is needed; supported: ByteLevel, Digits, Sequence, Split`, ErrUnsupported},
		{"pre_tokenizer", seq(split(`"pattern":{"Regex":"a"},"behavior":"Isolated","invert":false`) + `,{"type":"Metaspace"}`), `pre_tokenizer.pretokenizers[1].type "Metaspace" is not supported; supported: ByteLevel, Digits, Sequence, Split`, ErrUnsupported},
		{"pre_tokenizer", seq(seq(`{"type":"Whitespace"}`)), `pre_tokenizer.pretokenizers[0].pretokenizers[0].type "Whitespace" is not supported; supported: ByteLevel, Digits, Sequence, Split`, ErrUnsupported},
		{"pre_tokenizer", seq(``), `pre_tokenizer has no ByteLevel step; other alphabets are not supported`, ErrUnsupported},
		{"pre_tokenizer", seq(bl + `,{"type":"Digits"}`), `pre_tokenizer.pretokenizers[1].type "Digits" after ByteLevel is not supported`, ErrUnsupported},
		{"pre_tokenizer", seq(split(`"pattern":{"String":"a"},"behavior":"Isolated","invert":false`)), `pre_tokenizer.pretokenizers[0].pattern String is not supported; supported: Regex`, ErrUnsupported},
		{"pre_tokenizer", seq(split(`"pattern":{},"behavior":"Isolated","invert":false`)), `pre_tokenizer.pretokenizers[0].pattern.Regex is missing`, ErrFormat},
		{"pre_tokenizer", split(`"pattern":{"Regex":"a"},"behavior":"Removed","invert":false`), `pre_tokenizer.behavior "Removed" is not supported; supported: Isolated`, ErrUnsupported},
		{"pre_tokenizer", split(`"pattern":{"Regex":"a"},"behavior":"Isolated","invert":true`), `pre_tokenizer.invert true is not supported; supported: false`, ErrUnsupported},
		{"pre_tokenizer", split(`"pattern":{"Regex":"a(?"},"behavior":"Isolated","invert":false`), `pre_tokenizer.pattern.Regex: "(?" at byte 1 is not supported: supported groups: (, (?:, (?i:, (?=, (?!, (?<=, (?<!, (?>`, ErrUnsupported},
		{"pre_tokenizer", `{"type":"ByteLevel","speed":1}`, `pre_tokenizer: the field "speed" is not supported`, ErrUnsupported},
		{"pre_tokenizer", `{"type":7}`, `pre_tokenizer.type: must be a string`, ErrFormat},
		{"pre_tokenizer", `{}`, `pre_tokenizer.type is missing`, ErrFormat},
		{"post_processor", `{"type":"BertProcessing"}`, `post_processor.type "BertProcessing" is not supported; supported: ByteLevel, Sequence, TemplateProcessing`, ErrUnsupported},
		{"post_processor", `{"type":"Sequence","processors":[{"type":"ByteLevel"},{"type":"RobertaProcessing"}]}`, `post_processor.processors[1].type "RobertaProcessing" is not supported; supported: ByteLevel, Sequence, TemplateProcessing`, ErrUnsupported},
		{"post_processor", `{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<bos>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{}}`, `post_processor.single[0]: "<bos>" is not in post_processor.special_tokens`, ErrFormat},
		{"post_processor", `{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<bos>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"<bos>":{"id":"<bos>","ids":[999],"tokens":["<bos>"]}}}`, `post_processor.special_tokens: "<bos>" has the id 999, which is no token`, ErrFormat},
		{"post_processor", `{"type":"TemplateProcessing","single":[{"Sequence":{"id":"B","type_id":0}}],"pair":[],"special_tokens":{}}`, `post_processor.single[0]: Sequence "B" is not supported here; supported: A, once`, ErrUnsupported},
		{"post_processor", `{"type":"TemplateProcessing","single":[{}],"pair":[],"special_tokens":{}}`, `post_processor.single[0]: must be one of Sequence and SpecialToken`, ErrFormat},
		{"post_processor", `{"type":"TemplateProcessing","single":[],"pair":[],"special_tokens":{}}`, `post_processor.single has no Sequence A: the text would be lost`, ErrUnsupported},
		{"decoder", ``, `decoder null is not supported; supported: ByteLevel, Sequence of one ByteLevel`, ErrUnsupported},
		{"decoder", `{"type":"WordPiece"}`, `decoder.type "WordPiece" is not supported; supported: ByteLevel, Sequence`, ErrUnsupported},
		{"decoder", `{"type":"Sequence","decoders":[{"type":"Fuse"}]}`, `decoder.decoders[0].type "Fuse" is not supported; supported: ByteLevel, Sequence`, ErrUnsupported},
		{"decoder", `{"type":"Sequence","decoders":[` + bl + `,` + bl + `]}`, `decoder: a Sequence of 2 decoders is not supported; supported: of one ByteLevel`, ErrUnsupported},
		{"model", ``, `model is missing`, ErrFormat},
		{"model", `{"type":"Unigram","vocab":[]}`, `model.type "Unigram" is not supported; supported: BPE`, ErrUnsupported},
		{"model.dropout", `0.1`, `model.dropout 0.1 is not supported; supported: null`, ErrUnsupported},
		{"model.continuing_subword_prefix", `"##"`, `model.continuing_subword_prefix "##" is not supported; supported: null`, ErrUnsupported},
		{"model.end_of_word_suffix", `"</w>"`, `model.end_of_word_suffix "</w>" is not supported; supported: null`, ErrUnsupported},
		{"model.byte_fallback", `true`, `model.byte_fallback true is not supported; supported: false`, ErrUnsupported},
		{"model.vocab", `{}`, `model.vocab is missing or empty`, ErrFormat},
		{"model.vocab", `{"a":0,"b":0}`, `model.vocab: "a" and "b" have the same id 0`, ErrFormat},
		{"model.vocab", `{"a":-1}`, `model.vocab: "a" has the id -1; ids go from 0 to 16777215`, ErrFormat},
		{"model.vocab", `{"a":9999999}`, `ids go up to 9999999, but there are only 1 tokens`, ErrFormat},
		{"model.vocab", `{"a":"0"}`, `model.vocab: found a string where a int32 belongs`, ErrFormat},
		{"model.unk_token", `"<unk>"`, ``, nil}, // never needed with all bytes there
		{"model.merges", ``, `model.merges is missing`, ErrFormat},
		{"model.merges", `[["a"]]`, `model.merges[0]: has 1 tokens, not 2`, ErrFormat},
		{"model.merges", `["a b","a b c"]`, `model.merges[1]: "a b c" is not two tokens with a space between`, ErrFormat},
		{"model.merges", `["#version: 0.2","b c"]`, `model.merges[0]: "bc" is not in the vocabulary`, ErrFormat},
		{"model.merges", `[["a","zz"]]`, `model.merges[0]: "zz" is not in the vocabulary`, ErrFormat},
		{"model.extra", `1`, `model: the field "extra" is not supported`, ErrUnsupported},
		{"added_tokens", added(`"normal":true`), `added_tokens: the field "normal" is not supported`, ErrUnsupported},
		{"added_tokens", `[{"id":300,"content":""}]`, `added_tokens[0].content is empty`, ErrFormat},
		{"added_tokens", `[{"id":1,"content":"x1"}]`, `added_tokens[0]: "x1" has the id 1, which is that of "Ā"`, ErrFormat},
		{"added_tokens", `[{"id":300,"content":"ab"}]`, `added_tokens[0]: "ab" has the id 300, but 256 in model.vocab`, ErrFormat},
		{"added_tokens", `[{"id":300,"content":"x"},{"id":300,"content":"x"}]`, `added_tokens[0]: "x" has the id 300, but 120 in model.vocab`, ErrFormat},
		{"added_tokens", `[{"id":300,"content":"x1"},{"id":301,"content":"x1"}]`, `added_tokens[1]: "x1" was added before`, ErrFormat},
		{"added_tokens", `[{"id":16777216,"content":"x1"}]`, `added_tokens[0]: id 16777216; ids go from 0 to 16777215`, ErrFormat},
		{"added_tokens", `[{"id":16777215,"content":"x1"}]`, `added_tokens[0]: ids go up to 16777215, but there are only 259 tokens`, ErrFormat},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			js := tiny(t, map[string]string{tt.path: tt.value})
			if tt.path == "model.vocab" { // byte 0x00 is the file's Ā
				js = tiny(t, map[string]string{tt.path: tt.value, "model.merges": "[]"})
			}
			_, err := Load(js)
			if tt.is == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			want := "tokenizer.json: " + tt.want + " (" + tt.is.Error() + ")"
			if err == nil || strings.Replace(err.Error(), "\u0101", "Ā", 1) != want || !errors.Is(err, tt.is) {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
	for _, tt := range []struct{ js, want string }{
		{``, `tokenizer.json: byte 0: the JSON ends too early; download the file again (invalid tokenizer)`},
		{`{"model":`, `tokenizer.json: byte 9: the JSON ends too early; download the file again (invalid tokenizer)`},
		{`{"model":]`, `tokenizer.json: byte 10: invalid character ']' looking for beginning of value (invalid tokenizer)`},
		{`{} {}`, `tokenizer.json: byte 2: text follows the JSON value (invalid tokenizer)`},
		{`[]`, `tokenizer.json: found a array where a tokenizer.file belongs (invalid tokenizer)`},
	} {
		if _, err := Load([]byte(tt.js)); err == nil || err.Error() != tt.want {
			t.Errorf("%s:\ngot  %v\nwant %s", tt.js, err, tt.want)
		}
	}
}

func TestCheckPattern(t *testing.T) {
	tests := []struct{ pattern, want string }{
		{`\p{L}+|\p{Nd}{1,3}|[^\r\n\p{Lu}]?\s+(?!\S)|\.|(?<=a)b(?<!c)|(?>d)|(e)`, ""},
		{`(?i:'s|'t|'re|'ve|'m|'ll|'d)?`, ""},
		{`\w+`, `"\\w" at byte 0 is not supported: regular expression engines disagree on it`},
		{`a\`, `"\\" at byte 1 is not supported: nothing follows it`},
		{`\bx`, `"\\b" at byte 0 is not supported: regular expression engines disagree on it`},
		{`\p{Han}+`, `at byte 0: "\\p{Han}" is not supported: not a general category`},
		{`\pL`, `at byte 0: "\\pL" is not supported: write \p{...}`},
		{`[a[b]]`, `"[b" at byte 2 is not supported: a set within a set`},
		{`[a&&b]`, `"&&" at byte 2 is not supported: an intersection of sets`},
		{`[]a]`, `"[]" at byte 0 is not supported: write \] in a set`},
		{`^a`, `"^" at byte 0 is not supported: regular expression engines disagree on anchors`},
		{`(?i)a`, `"(?i)" at byte 0 is not supported: supported groups: (, (?:, (?i:, (?=, (?!, (?<=, (?<!, (?>`},
		{`a{1,2}+`, `"+" at byte 6 is not supported: after {n,m}, regular expression engines disagree on it`},
		{`(?i:ss)`, `"ss" at byte 4 is not supported: it also matches a single character when case is ignored`},
		{`(?i:é)`, `"\xc3" at byte 4 is not supported: case folding beyond ASCII`},
		{`(?i:[st])`, `"[" at byte 4 is not supported: a set where case is ignored`},
		{`(?i:a)ss`, ""},
	}
	for _, tt := range tests {
		err := checkPattern(tt.pattern)
		if got := fmt.Sprint(err); tt.want == "" && err != nil || tt.want != "" && got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.pattern, got, tt.want)
		}
	}
}

// TestRegexp2Classes makes sure that regexp2's classes are the ones that the scanner uses.
func TestRegexp2Classes(t *testing.T) {
	for source, want := range map[string]func(r rune) bool{
		`\s`:    func(r rune) bool { c := classOf(r); return c == space || c == newline },
		`\p{L}`: unicode.IsLetter,
		`\p{N}`: unicode.IsNumber,
		`\d`:    unicode.IsDigit,
	} {
		re := regexp2.MustCompile(source)
		for r := rune(0); r <= unicode.MaxRune; r++ {
			if r >= 0xd800 && r < 0xe000 || r > 0x3000 && r%13 != 0 { // a sample of the rest: it is slow
				continue
			}
			got, err := re.MatchRunes([]rune{r})
			if err != nil || got != want(r) {
				t.Fatalf("%s: U+%04X matches %v (%v)", source, r, got, err)
			}
		}
	}
}

func TestSlowPattern(t *testing.T) {
	p, err := compilePattern(`(?:a|aa|aaa)+x|(?:\p{L}+)+1`)
	if err != nil {
		t.Fatal(err)
	}
	p.re.MatchTimeout = 50 * time.Millisecond
	err = p.split(strings.Repeat("a", 5000), func(string) error { return nil })
	if !errors.Is(err, ErrPattern) || len(err.Error()) > 300 {
		t.Errorf("got %.300v", err)
	}
	stop := errors.New("stop")
	if err := p.split("ax ax", func(string) error { return stop }); err != stop {
		t.Errorf("the callback's error got lost: %v", err)
	}
}

func TestEncode(t *testing.T) {
	tok := mustLoad(t, tiny(t, nil))
	tests := []struct {
		text  string
		plain bool
		want  []int32
	}{
		{"", false, []int32{}},
		{"abc", false, []int32{257}},
		{"abab", false, []int32{256, 256}},
		{"cab", false, []int32{'c', 256}},
		{"a<eot>b", false, []int32{'a', 258, 'b'}},
		{"a<eot>b", true, []int32{'a', '<', 'e', 'o', 't', '>', 'b'}},
		{"<eo<eot>", false, []int32{'<', 'e', 'o', 258}},
		{"\xff\xc3(", false, []int32{0xff, 0xc3, '('}},
		{"a\x00b", false, []int32{'a', 0, 'b'}},
	}
	for _, tt := range tests {
		got, err := tok.EncodeWith(tt.text, Options{PlainSpecial: tt.plain})
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%q plain %v: %v %v, want %v", tt.text, tt.plain, got, err, tt.want)
		}
		if back := tok.Decode(got, false); back != tt.text {
			t.Errorf("%q came back as %q", tt.text, back)
		}
	}
	if got := tok.Decode([]int32{258, 'x', -1, 9999, 258}, true); got != "x" {
		t.Errorf("decode without special tokens: %q", got)
	}
	if n := tok.VocabSize(); n != 259 {
		t.Errorf("vocabulary of %d", n)
	}
	if id, ok := tok.TokenID("Ġ"); id != ' ' || !ok {
		t.Errorf("space is %d %v", id, ok)
	}
	if _, ok := tok.TokenID("nothing"); ok {
		t.Error("unknown token found")
	}
	if s, ok := tok.Token(258); s != "<eot>" || !ok || !tok.IsSpecial(258) || tok.IsSpecial(0) || tok.IsSpecial(-1) {
		t.Errorf("token 258 is %q %v", s, ok)
	}
	for _, id := range []int32{-1, 259} {
		if _, ok := tok.Token(id); ok {
			t.Errorf("token %d exists", id)
		}
	}
}

// TestPlainSpecialWithIgnoreMerges: a special token that is in the model's own vocabulary must
// not come from text, not even where a whole word is looked up.
func TestPlainSpecialWithIgnoreMerges(t *testing.T) {
	tok := mustLoad(t, tiny(t, map[string]string{
		"model.ignore_merges": "true",
		"added_tokens":        `[{"id":257,"content":"abc","special":true,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false}]`,
		"model.merges":        `[["a","b"]]`,
	}))
	for _, plain := range []bool{true, false} {
		got, err := tok.EncodeWith("abc", Options{PlainSpecial: plain})
		if want := map[bool][]int32{true: {256, 'c'}, false: {257}}[plain]; err != nil || !slices.Equal(got, want) {
			t.Errorf("plain %v: %v %v, want %v", plain, got, err, want)
		}
	}
}

func TestMissingByte(t *testing.T) {
	tok := mustLoad(t, tiny(t, map[string]string{"model.vocab": `{"a":0,"b":1,"ab":2}`, "model.merges": `[["a","b"]]`, "added_tokens": "[]"}))
	if _, err := tok.Encode("ab!", false); !errors.Is(err, ErrNoToken) || err.Error() != `tokenizer: the vocabulary has no token for the byte 0x21: no token` {
		t.Errorf("got %v", err)
	}
	_, err := Load(tiny(t, map[string]string{"model.vocab": `{"a":0,"b":1,"ab":2}`, "model.merges": `[["a","b"]]`, "model.unk_token": `"?"`}))
	if want := `tokenizer.json: model.unk_token "?" is not in the vocabulary (invalid tokenizer)`; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestStream(t *testing.T) {
	texts, _ := goldenStrings(t)
	texts = append(texts, "\xf0\x9f\x98", "\xe2\x82x\xe2", "\xff\xfe\xf0", "\xed\xa0\x80", "é\xc3")
	for _, name := range []string{"digits1", "digits3"} {
		tok := loadTest(t, name)
		for _, text := range texts {
			ids, err := tok.Encode(text, true)
			if err != nil {
				t.Fatal(err)
			}
			s := tok.Stream(false)
			var all strings.Builder
			for _, id := range ids {
				piece := s.Push(id)
				if utf8.ValidString(text) && !utf8.ValidString(piece) {
					t.Fatalf("%q: a character was split: %q", text, piece)
				}
				all.WriteString(piece)
			}
			all.WriteString(s.Flush())
			if want := tok.Decode(ids, false); all.String() != want {
				t.Fatalf("%q streamed as %q, decoded as %q", text, all.String(), want)
			}
		}
	}
}

// naive merges the pair of lowest rank, leftmost first, until there is none.
func naive(m *bpe, word string) []int32 {
	var ids []int32
	for i := range len(word) {
		ids = append(ids, m.byteID[word[i]])
	}
	for {
		best, at := merge{rank: 1 << 30}, -1
		for i := 0; i+1 < len(ids); i++ {
			if g, ok := m.merges[pair(ids[i], ids[i+1])]; ok && g.rank < best.rank {
				best, at = g, i
			}
		}
		if at < 0 {
			return ids
		}
		ids = slices.Replace(ids, at, at+2, best.id)
	}
}

func TestMergeAgainstNaive(t *testing.T) {
	tok := loadTest(t, "digits1")
	rng := rand.New(rand.NewPCG(1, 2))
	s := &scratch{cache: map[string][]int32{}}
	for range 3000 {
		b := make([]byte, 1+rng.IntN(60))
		for i := range b {
			b[i] = "aeiourstlnm b"[rng.IntN(13)]
			if rng.IntN(50) == 0 {
				b[i] = byte(rng.IntN(256))
			}
		}
		got, err := tok.model.encode(nil, string(b), s)
		if want := naive(&tok.model, string(b)); err != nil || !slices.Equal(got, want) {
			t.Fatalf("%q: %v %v, want %v", b, got, err, want)
		}
	}
}

// TestLongWord: half a megabyte without a word boundary must not take quadratic time.
func TestLongWord(t *testing.T) {
	tok := loadTest(t, "digits1")
	for _, unit := range []string{"a", " ", "ana", "!", "é", "漢"} {
		text := strings.Repeat(unit, 1<<19/len(unit))
		start := time.Now()
		ids, err := tok.Encode(text, false)
		if err != nil || tok.Decode(ids, false) != text {
			t.Fatalf("%q: %v", unit, err)
		}
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("%q: %v", unit, d)
		}
	}
}

func TestConcurrent(t *testing.T) {
	tok := loadTest(t, "digits3")
	texts, _ := goldenStrings(t)
	done := make(chan error)
	for range 4 {
		go func() {
			var err error
			for _, s := range texts {
				ids, e := tok.Encode(s, false)
				if e != nil {
					err = e
				} else if tok.Decode(ids, false) != s {
					err = fmt.Errorf("%q does not come back", s)
				}
			}
			done <- err
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(tiny(f, nil))
	f.Add(tiny(f, map[string]string{"model.merges": `["a b","ab c"]`, "normalizer": `{"type":"NFC"}`,
		"pre_tokenizer": `{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\p{L}+|(?i:'s)"},"behavior":"Isolated","invert":false},{"type":"Digits","individual_digits":true},{"type":"ByteLevel"}]}`}))
	f.Add([]byte(`{"model":{"vocab":{"a":0,"<u>":1},"unk_token":"<u>","merges":[]},"pre_tokenizer":{"type":"ByteLevel"},"decoder":{"type":"ByteLevel"},"post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"<u>","type_id":0}}],"special_tokens":{"<u>":{"id":"<u>","ids":[1],"tokens":["<u>"]}}}}`))
	f.Fuzz(func(t *testing.T, js []byte) {
		if len(js) > 1<<14 {
			return
		}
		tok, err := Load(js)
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("%v has no sentinel", err)
			}
			return
		}
		for _, s := range tok.stages { // a slow pattern is found soon enough
			if s.regex != nil {
				s.regex.re.MatchTimeout = 20 * time.Millisecond
			}
		}
		ids, err := tok.Encode("abc <eot> 12 it's\r\n \xff", true)
		if err != nil && !errors.Is(err, ErrNoToken) && !errors.Is(err, ErrPattern) {
			t.Fatal(err)
		}
		for _, id := range ids {
			if _, ok := tok.Token(id); !ok {
				t.Fatalf("id %d is no token", id)
			}
		}
		tok.Decode(ids, true)
	})
}

func FuzzRoundTrip(f *testing.F) {
	texts, _ := goldenStrings(f)
	for i := 0; i < len(texts); i += 5 {
		f.Add(texts[i])
	}
	f.Add("\xff\xf0\x9f a\xc3")
	toks := []*Tokenizer{loadTest(f, "digits1"), loadTest(f, "digits3")}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<13 {
			return
		}
		for _, tok := range toks {
			for _, plain := range []bool{false, true} {
				ids, err := tok.EncodeWith(text, Options{PlainSpecial: plain})
				if err != nil {
					t.Fatal(err)
				}
				if back := tok.Decode(ids, false); back != text {
					t.Fatalf("%q came back as %q", text, back)
				}
				for _, id := range ids {
					if plain && tok.IsSpecial(id) {
						t.Fatalf("%q gave the special token %d as plain text", text, id)
					}
				}
			}
		}
	})
}

// benchText is prose of about n tokens, from the golden strings' sentences.
func benchText(b *testing.B, tok *Tokenizer, n int) string {
	texts, _ := goldenStrings(b)
	var sb strings.Builder
	rng := rand.New(rand.NewPCG(3, 4))
	for count := 0; count < n; {
		s := texts[27+rng.IntN(23)] + " " + texts[400+rng.IntN(600)]
		ids, err := tok.Encode(s, false)
		if err != nil {
			b.Fatal(err)
		}
		count += len(ids)
		sb.WriteString(s + "\n")
	}
	return sb.String()
}

func BenchmarkEncode(b *testing.B) {
	for _, name := range []string{"digits1", "digits3", "cased"} {
		b.Run(name, func(b *testing.B) {
			tok := loadTest(b, name)
			text := benchText(b, tok, 130_000)
			b.SetBytes(int64(len(text)))
			n := 0
			for b.Loop() {
				ids, err := tok.Encode(text, true)
				if err != nil {
					b.Fatal(err)
				}
				n = len(ids)
			}
			b.ReportMetric(float64(n), "tokens/op")
		})
	}
}
