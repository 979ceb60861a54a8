package tokenizer

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dlclark/regexp2/v2"
)

// matchTimeout bounds the search for one word. Backtracking can be exponential; a pattern that
// needs longer is reported instead of hanging the program.
const matchTimeout = 2 * time.Second

// pattern cuts text at the matches of a regular expression.
type pattern struct {
	source string
	re     *regexp2.Regexp
}

// compilePattern compiles a pattern that has no scanner. The reference matches with Oniguruma;
// what means something else to regexp2 is refused.
func compilePattern(source string) (*pattern, error) {
	if err := checkPattern(source); err != nil {
		return nil, err
	}
	re, err := regexp2.Compile(source)
	if err != nil {
		return nil, err
	}
	re.MatchTimeout = matchTimeout
	return &pattern{source, re}, nil
}

// checkPattern lets only that syntax through which both engines read alike.
func checkPattern(p string) error {
	if len(p) > 1<<16 {
		return fmt.Errorf("it has %d bytes, more than the limit of %d", len(p), 1<<16)
	}
	refuse := func(i, n int, why string) error {
		return fmt.Errorf("%q at byte %d is not supported: %s", p[i:min(i+n, len(p))], i, why)
	}
	depth := 0
	var folded []int // the depths at which a (?i: group is open
	inClass := false
	property := -1 // where the last \p{...} ends
	for i := 0; i < len(p); i++ {
		c := p[i]
		if c == '\\' {
			if i+1 == len(p) {
				return refuse(i, 1, "nothing follows it")
			}
			i++
			switch e := p[i]; {
			case len(folded) > 0 && unicode.IsLetter(rune(e)):
				return refuse(i-1, 2, "a set where case is ignored")
			case e == 'p' || e == 'P':
				if err := checkProperty(p[i-1:]); err != nil {
					return fmt.Errorf("at byte %d: %w", i-1, err)
				}
				i += strings.IndexByte(p[i:], '}')
				property = i
			case strings.IndexByte("rntsSd", e) >= 0:
			case e < utf8.RuneSelf && !unicode.IsLetter(rune(e)) && !unicode.IsDigit(rune(e)): // a literal
			default:
				return refuse(i-1, 2, "regular expression engines disagree on it")
			}
			continue
		}
		if inClass {
			switch {
			case c == ']':
				inClass = false
			case c == '[':
				return refuse(i, 2, "a set within a set")
			case c == '&' && strings.HasPrefix(p[i:], "&&"):
				return refuse(i, 2, "an intersection of sets")
			}
			continue
		}
		switch c {
		case '[':
			if len(folded) > 0 {
				return refuse(i, 1, "a set where case is ignored")
			}
			inClass = true
			if strings.HasPrefix(p[i+1:], "^") {
				i++
			}
			if strings.HasPrefix(p[i+1:], "]") {
				return refuse(i, 2, "write \\] in a set")
			}
		case '(':
			depth++
			rest := p[i+1:]
			if !strings.HasPrefix(rest, "?") {
				break
			}
			ok := false
			for _, known := range []string{"?:", "?i:", "?=", "?!", "?<=", "?<!", "?>"} {
				if strings.HasPrefix(rest, known) {
					i += len(known)
					ok = true
					if known == "?i:" {
						folded = append(folded, depth)
					}
					break
				}
			}
			if !ok {
				return refuse(i, 4, "supported groups: (, (?:, (?i:, (?=, (?!, (?<=, (?<!, (?>")
			}
		case ')':
			if n := len(folded); n > 0 && folded[n-1] == depth {
				folded = folded[:n-1]
			}
			depth--
		case '^', '$':
			return refuse(i, 1, "regular expression engines disagree on anchors")
		case '+':
			if i > 0 && p[i-1] == '}' && property != i-1 {
				return refuse(i, 1, "after {n,m}, regular expression engines disagree on it")
			}
		default:
			// Oniguruma also folds pairs: (?i:ss) matches U+00DF. Only what cannot be in such a
			// pair may stand in a folded group.
			if len(folded) == 0 {
				break
			}
			if c >= utf8.RuneSelf {
				return refuse(i, 1, "case folding beyond ASCII")
			}
			if i > 0 {
				switch pair := strings.ToLower(p[i-1 : i+1]); pair {
				case "ss", "st", "ff", "fi", "fl":
					return refuse(i-1, 2, "it also matches a single character when case is ignored")
				}
			}
		}
	}
	return nil
}

// checkProperty checks a \p{...} at the start of p: general categories alone, since names of
// scripts and other properties depend on the engine.
func checkProperty(p string) error {
	end := strings.IndexByte(p, '}')
	if len(p) < 3 || p[2] != '{' || end < 0 {
		return fmt.Errorf("%q is not supported: write \\p{...}", p[:min(len(p), 3)])
	}
	name := p[3:end]
	if _, ok := unicode.Categories[name]; !ok || len(name) > 2 {
		return fmt.Errorf("%q is not supported: not a general category", p[:end+1])
	}
	return nil
}

// split calls emit for every match and for every piece of text between matches, in order.
func (p *pattern) split(s string, emit func(string) error) error {
	// regexp2 counts characters and would replace stray bytes: keep the byte offset of each.
	runes := make([]rune, 0, len(s))
	offsets := make([]int, 0, len(s)+1)
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		runes = append(runes, r)
		offsets = append(offsets, i)
		i += n
	}
	offsets = append(offsets, len(s))
	at := 0
	var failed error
	err := p.re.FindRunesMatches(runes, 0, func(m regexp2.MatchView) bool {
		first, n, ok := m.GroupRange(0)
		if !ok {
			return true
		}
		lo, hi := offsets[first], offsets[first+n]
		if failed = emitNonEmpty(s[at:lo], emit); failed == nil {
			failed = emitNonEmpty(s[lo:hi], emit)
		}
		at = hi
		return failed == nil
	})
	switch {
	case failed != nil:
		return failed
	case errors.Is(err, regexp2.ErrBacktrackingStackLimit):
		return fmt.Errorf("tokenizer: pattern %q needs too much memory at byte %d of a text of %d bytes: %w", p.source, at, len(s), ErrPattern)
	case err != nil: // its text would repeat the whole input
		return fmt.Errorf("tokenizer: pattern %q needs more than %v at byte %d of a text of %d bytes: %w", p.source, p.re.MatchTimeout, at, len(s), ErrPattern)
	}
	return emitNonEmpty(s[at:], emit)
}

func emitNonEmpty(s string, emit func(string) error) error {
	if s == "" {
		return nil
	}
	return emit(s)
}
