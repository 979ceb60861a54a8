package tokenizer

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedToken is a token that is cut out of the text by exact match.
type addedToken struct {
	id         int32
	pattern    string // what is looked for
	special    bool
	lstrip     bool // swallows the white space before it
	rstrip     bool // and after it
	singleWord bool // only between characters that are no part of a word
}

// matcher finds added tokens, the longest at the leftmost place, without overlap.
type matcher struct {
	byFirst [256][]addedToken // by first byte, longest first
	any     bool
}

func newMatcher(tokens []addedToken) *matcher {
	m := &matcher{any: len(tokens) > 0}
	for _, t := range tokens {
		m.byFirst[t.pattern[0]] = append(m.byFirst[t.pattern[0]], t)
	}
	for _, l := range m.byFirst {
		slices.SortStableFunc(l, func(a, b addedToken) int { return len(b.pattern) - len(a.pattern) })
	}
	return m
}

// find gives the first match at or after s[from:], or nil.
func (m *matcher) find(s string, from int) (start int, t *addedToken) {
	for i := from; i < len(s); i++ {
		for j := range m.byFirst[s[i]] {
			if t := &m.byFirst[s[i]][j]; strings.HasPrefix(s[i:], t.pattern) {
				return i, t
			}
		}
	}
	return -1, nil
}

// split calls text for the pieces between added tokens and token for the tokens, in order. With
// plain, special tokens are text.
func (m *matcher) split(s string, plain bool, text func(string) error, token func(int32)) error {
	done := 0 // everything before it was handed out
	if m.any {
		for from := 0; ; {
			start, t := m.find(s, from)
			if t == nil {
				break
			}
			end := start + len(t.pattern)
			from = end // also after a match that does not count: that is how the reference goes on
			if plain && t.special || t.singleWord && !alone(s, start, end) {
				continue
			}
			if start < done { // its beginning was swallowed as the white space of the token before
				continue
			}
			if t.lstrip {
				start = max(done, len(strings.TrimRightFunc(s[:start], unicode.IsSpace)))
			}
			if t.rstrip {
				end = len(s) - len(strings.TrimLeftFunc(s[end:], unicode.IsSpace))
			}
			if err := emitNonEmpty(s[done:start], text); err != nil {
				return err
			}
			token(t.id)
			done = end
		}
	}
	return emitNonEmpty(s[done:], text)
}

// alone says whether no word character touches s[start:end].
func alone(s string, start, end int) bool {
	if r, _ := utf8.DecodeLastRuneInString(s[:start]); start > 0 && isWord(r) {
		return false
	}
	r, _ := utf8.DecodeRuneInString(s[end:])
	return end == len(s) || !isWord(r)
}
