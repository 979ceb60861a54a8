package tokenizer

import (
	"errors"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

var (
	// ErrFormat: tokenizer.json is malformed or contradicts itself.
	ErrFormat = errors.New("invalid tokenizer")
	// ErrUnsupported: tokenizer.json asks for a step or a setting that is not implemented.
	ErrUnsupported = errors.New("unsupported tokenizer")
	// ErrNoToken: the text has a byte that the vocabulary cannot write.
	ErrNoToken = errors.New("no token")
	// ErrPattern: the pre-tokenizer's regular expression takes too long on this text.
	ErrPattern = errors.New("pattern is too slow")
)

// Tokenizer is a loaded tokenizer.json. It is read-only and safe for concurrent use.
type Tokenizer struct {
	model  bpe
	nfc    bool
	raw    *matcher // added tokens that are looked for in the text as it is
	normed *matcher // added tokens that are looked for after the normalizer
	stages []stage

	ids     map[string]int32 // by the file's spelling, added tokens included
	names   []string         // by id, the file's spelling
	texts   []string         // by id, the bytes that a token stands for
	known   []bool           // by id: there is such a token
	special []bool           // by id

	prefix, suffix []int32 // of the post-processor's template

	pool sync.Pool // of *scratch
}

// stage is a step of the pre-tokenizer; exactly one of its fields is set.
type stage struct {
	scan   *scanner
	regex  *pattern
	digits digitsMode
	prefix bool // put a space before a piece that does not start with one
}

type digitsMode uint8

const (
	digitsOff digitsMode = iota
	digitsEach
	digitsRuns
)

// Options are for EncodeWith.
type Options struct {
	// AddSpecial adds what the post-processor's template has, mostly a begin-of-text token.
	AddSpecial bool
	// PlainSpecial reads special tokens that are spelled out in the text as plain text, so that
	// text from strangers cannot end a turn or begin another. Other added tokens still match.
	PlainSpecial bool
}

// Encode gives the tokens of a text, of any length; "" has none but the template's. addSpecial
// adds what the post-processor's template has, mostly a begin-of-text token. Special tokens that
// are spelled out in the text are matched, as Hugging Face does; see EncodeWith to prevent that.
// Bytes that are not UTF-8 are encoded as they are. Errors: ErrNoToken for a vocabulary without all
// bytes, ErrPattern for a regular expression that takes too long.
func (t *Tokenizer) Encode(text string, addSpecial bool) ([]int32, error) {
	return t.EncodeWith(text, Options{AddSpecial: addSpecial})
}

// EncodeWith is Encode with all options.
func (t *Tokenizer) EncodeWith(text string, o Options) ([]int32, error) {
	s, _ := t.pool.Get().(*scratch)
	if s == nil {
		s = &scratch{cache: make(map[string][]int32)}
	}
	defer func() {
		// One huge word must not stay in memory for ever.
		if cap(s.symbols) > 1<<16 {
			s.symbols, s.heap = nil, nil
		}
		t.pool.Put(s)
	}()
	e := &encoder{t: t, s: s, out: make([]int32, 0, len(text)/3+8)}
	if o.AddSpecial {
		e.out = append(e.out, t.prefix...)
	}
	token := func(id int32) { e.out = append(e.out, id) }
	err := t.raw.split(text, o.PlainSpecial, func(piece string) error {
		if t.nfc {
			piece = norm.NFC.String(piece)
		}
		return t.normed.split(piece, o.PlainSpecial, func(piece string) error { return e.run(0, piece) }, token)
	}, token)
	if err != nil {
		return nil, err
	}
	if o.AddSpecial {
		e.out = append(e.out, t.suffix...)
	}
	return e.out, nil
}

// encoder is one call of Encode.
type encoder struct {
	t   *Tokenizer
	s   *scratch
	out []int32
}

// run puts a piece through the stages from the given one on, then through BPE.
func (e *encoder) run(i int, piece string) (err error) {
	if piece == "" {
		return nil
	}
	if i == len(e.t.stages) {
		out, err := e.t.model.encode(e.out, piece, e.s)
		if err != nil {
			return err
		}
		e.out = out
		return nil
	}
	st := &e.t.stages[i]
	switch {
	case st.scan != nil:
		for at := 0; at < len(piece) && err == nil; {
			end := st.scan.next(piece, at)
			err = e.run(i+1, piece[at:end])
			at = end
		}
		return err
	case st.regex != nil:
		return st.regex.split(piece, func(word string) error { return e.run(i+1, word) })
	case st.digits != digitsOff:
		return splitDigits(piece, st.digits, func(word string) error { return e.run(i+1, word) })
	case st.prefix && piece[0] != ' ':
		piece = " " + piece
	}
	return e.run(i+1, piece)
}

// splitDigits cuts numbers out of s, each digit for itself or in runs.
func splitDigits(s string, mode digitsMode, emit func(string) error) error {
	at, in := 0, false
	for i, r := range s {
		n := isNumber(r)
		if n != in || n && mode == digitsEach {
			if err := emitNonEmpty(s[at:i], emit); err != nil {
				return err
			}
			at, in = i, n
		}
	}
	return emitNonEmpty(s[at:], emit)
}

// Decode gives the text of tokens: the bytes that were encoded, so that the result is not valid
// UTF-8 where the text was not or where the tokens are cut off within a character (strings.ToValidUTF8
// makes it so, and Stream waits for the rest of a character). skipSpecial leaves special tokens
// out. Ids that the vocabulary does not have are left out, as Hugging Face does. Unlike there,
// added tokens are given back letter by letter, also where they have characters that the
// byte-level alphabet would read as other bytes.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(t.text(id, skipSpecial))
	}
	return b.String()
}

func (t *Tokenizer) text(id int32, skipSpecial bool) string {
	if id < 0 || int(id) >= len(t.texts) || skipSpecial && t.special[id] {
		return ""
	}
	return t.texts[id]
}

// TokenID gives the id of a token as tokenizer.json spells it: "<|eot|>", or "Ġthe" for " the".
func (t *Tokenizer) TokenID(token string) (id int32, ok bool) {
	id, ok = t.ids[token]
	return id, ok
}

// Token gives a token as tokenizer.json spells it; see Decode for its text.
func (t *Tokenizer) Token(id int32) (token string, ok bool) {
	if id < 0 || int(id) >= len(t.names) || !t.known[id] {
		return "", false
	}
	return t.names[id], true
}

// IsSpecial says whether a token is marked special in tokenizer.json.
func (t *Tokenizer) IsSpecial(id int32) bool {
	return id >= 0 && int(id) < len(t.special) && t.special[id]
}

// VocabSize is one more than the largest token id, added tokens included: the number of rows that
// an embedding table must have at least.
func (t *Tokenizer) VocabSize() int { return len(t.names) }

// Stream decodes tokens as they come and never hands out a part of a character: the concatenation
// of what Push and Flush return is what Decode returns. Bytes that are no part of a character are
// handed out as they are. A Stream is for one goroutine.
type Stream struct {
	t           *Tokenizer
	skipSpecial bool
	held        []byte // the beginning of a character, less than 4 bytes
}

// Stream begins to decode a sequence of tokens.
func (t *Tokenizer) Stream(skipSpecial bool) *Stream { return &Stream{t: t, skipSpecial: skipSpecial} }

// Push takes the next token and returns the text that is complete now, which may be "".
func (s *Stream) Push(id int32) string {
	s.held = append(s.held, s.t.text(id, s.skipSpecial)...)
	keep := incomplete(s.held)
	n := len(s.held) - keep
	out := string(s.held[:n])
	s.held = append(s.held[:0], s.held[n:]...)
	return out
}

// Flush returns the bytes that are still held back; they are no whole character.
func (s *Stream) Flush() string {
	out := string(s.held)
	s.held = s.held[:0]
	return out
}

// incomplete counts the bytes at the end of b that more bytes could make a character of.
func incomplete(b []byte) int {
	for k := 1; k < utf8.UTFMax && k <= len(b); k++ {
		if tail := b[len(b)-k:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				return k
			}
			break
		}
	}
	return 0
}
