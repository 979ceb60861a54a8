package tokenizer

import "strings"

// scanner finds the words of a known pattern. next gives the end of the word at s[i]; these
// patterns leave no character outside a word.
type scanner struct {
	gpt2      bool // the GPT-2 pattern; else the Llama 3 family
	maxDigits int  // Llama 3 family: the longest run of digits in one word
}

// The patterns that have a scanner, as tokenizer.json spells them.
const (
	patternGPT2   = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	patternGPT2HF = `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	patternLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternQwen2  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// scanners is looked up by the exact pattern: a pattern that merely looks alike goes to regexp2.
var scanners = map[string]scanner{
	patternGPT2:   {gpt2: true},
	patternGPT2HF: {gpt2: true},
	patternLlama3: {maxDigits: 3},
	patternQwen2:  {maxDigits: 1},
}

// next gives the end of the word that starts at s[i]; i < len(s).
func (sc scanner) next(s string, i int) int {
	if sc.gpt2 {
		return nextGPT2(s, i)
	}
	return sc.nextLlama(s, i)
}

// runOf gives the end of the run of class c that starts at i.
func runOf(t *[1 << 16]class, s string, i int, c class) int {
	for i < len(s) {
		k, n := classAt(t, s, i)
		if k != c {
			break
		}
		i += n
	}
	return i
}

// spaces follows white space from i: end of the run, start of its last character, and the end of
// its last line end, or -1.
func spaces(t *[1 << 16]class, s string, i int) (end, last, lineEnd int) {
	end, last, lineEnd = i, i, -1
	for end < len(s) {
		k, n := classAt(t, s, end)
		if k != space && k != newline {
			break
		}
		last = end
		end += n
		if k == newline {
			lineEnd = end
		}
	}
	return end, last, lineEnd
}

// afterSpaces is the end of \s+(?!\S)|\s+ at i: all of the run at the end of the text, all but
// its last character before a word, and that one if it is alone.
func afterSpaces(s string, i, end, last int) int {
	if end == len(s) || last == i {
		return end
	}
	return last
}

// contraction gives the end of 's, 't, 're, 've, 'm, 'll or 'd at i, or -1. With fold, letters
// match in either case; U+017F is an s then.
func contraction(s string, i int, fold bool) int {
	if s[i] != '\'' || i+1 == len(s) {
		return -1
	}
	rest := s[i+1:]
	if fold && strings.HasPrefix(rest, "\u017f") {
		return i + 1 + len("\u017f")
	}
	lower := func(j int) byte {
		if j >= len(rest) {
			return 0
		}
		if c := rest[j]; fold && c >= 'A' && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return rest[j]
	}
	switch lower(0) {
	case 's', 't', 'm', 'd':
		return i + 2
	case 'r', 'v':
		if lower(1) == 'e' {
			return i + 3
		}
	case 'l':
		if lower(1) == 'l' {
			return i + 3
		}
	}
	return -1
}

func nextGPT2(s string, i int) int {
	if e := contraction(s, i, false); e >= 0 {
		return e
	}
	t := classes()
	c, n := classAt(t, s, i)
	start := i
	if s[i] == ' ' && i+1 < len(s) { // " ?" in front of a word
		if c2, n2 := classAt(t, s, i+1); c2 != space && c2 != newline {
			c, n, start = c2, n2, i+1
		}
	}
	if c != space && c != newline {
		return runOf(t, s, start+n, c)
	}
	end, last, _ := spaces(t, s, i)
	return afterSpaces(s, i, end, last)
}

func (sc scanner) nextLlama(s string, i int) int {
	if e := contraction(s, i, true); e >= 0 {
		return e
	}
	t := classes()
	c, n := classAt(t, s, i)
	switch c {
	case letter:
		return runOf(t, s, i+n, letter)
	case number:
		for d := 1; d < sc.maxDigits && i+n < len(s); d++ {
			k, m := classAt(t, s, i+n)
			if k != number {
				break
			}
			n += m
		}
		return i + n
	}
	if c != newline && i+n < len(s) { // any one character but a line end may lead letters
		if k, m := classAt(t, s, i+n); k == letter {
			return runOf(t, s, i+n+m, letter)
		} else if s[i] == ' ' && k == other {
			c, n = other, n+m
		}
	}
	if c == other {
		return runOf(t, s, runOf(t, s, i+n, other), newline)
	}
	end, last, lineEnd := spaces(t, s, i)
	if lineEnd >= 0 {
		return lineEnd
	}
	return afterSpaces(s, i, end, last)
}
