// Package ruler writes needle-in-a-haystack tasks in the format of the RULER
// benchmark (arXiv 2404.06654): a long text in which sentences of the form
// "One of the special magic numbers for WORD is: 1234567." are hidden, and a
// question for one of the numbers.
package ruler

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
)

// noise is RULER's filler sentence group, repeated over and over.
const noise = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."

// Options describe a task.
type Options struct {
	Tokens int      // least number of tokens of the document
	Keys   int      // needles, each with its own word: 1 is RULER's single task, more its multi-key
	Words  []string // words to draw the needles' keys from, at least Keys
	Prose  string   // filler text, a paragraph a line; empty: RULER's noise sentences
	Seed   uint64
	// Depth, when not negative, is where the needle that is asked for
	// stands, as a share of the document.
	Depth float64
	// Count returns the number of tokens of a text.
	Count func(text string) (int, error)
}

// Task is a document, a question about it and the digits that answer it.
type Task struct {
	Document string
	Question string
	Answer   string
}

// Question returns RULER's question for the number of word. It ends where the
// model is to go on with the number.
func Question(word string) string {
	return fmt.Sprintf("What is the special magic number for %s mentioned in the provided text? "+
		"The special magic number for %s mentioned in the provided text is", word, word)
}

// needle returns the sentence that holds the number of word.
func needle(word, number string) string {
	return fmt.Sprintf("One of the special magic numbers for %s is: %s.", word, number)
}

// New writes a task; the same options give the same task.
func New(o Options) (*Task, error) {
	if o.Keys < 1 || o.Keys > len(o.Words) {
		return nil, fmt.Errorf("%d keys from %d words: need at least one key and a word for each", o.Keys, len(o.Words))
	}
	r := rand.New(rand.NewPCG(o.Seed, 0x52554c4552))
	var needles []string
	var asked *Task
	numbers := map[int]bool{}
	for i, w := range r.Perm(len(o.Words))[:o.Keys] {
		n := 1_000_000 + r.IntN(9_000_000)
		for numbers[n] {
			n = 1_000_000 + r.IntN(9_000_000)
		}
		numbers[n] = true
		if i == 0 {
			asked = &Task{Question: Question(o.Words[w]), Answer: fmt.Sprint(n)}
		}
		needles = append(needles, needle(o.Words[w], fmt.Sprint(n)))
	}
	filler, err := fill(o, r, needles)
	if err != nil {
		return nil, err
	}
	at := make([]int, len(needles))
	for i := range at {
		at[i] = r.IntN(len(filler) + 1)
	}
	if o.Depth >= 0 {
		at[0] = int(min(o.Depth, 1) * float64(len(filler)))
	}
	asked.Document = weave(filler, needles, at)
	return asked, nil
}

// sentences ends a clause at punctuation followed by a space.
var sentences = regexp.MustCompile(`[^.?!:;]*[.?!:;]+ ?|[^.?!:;]+$`)

// fill draws clauses from a random place of the prose on, wrapping at its
// end, until they and the needles have the tokens asked for. A clause that
// ends a paragraph ends in a newline.
func fill(o Options, r *rand.Rand, needles []string) ([]string, error) {
	var source []string
	for _, line := range strings.Split(strings.TrimSpace(o.Prose), "\n") {
		if parts := sentences.FindAllString(strings.TrimSpace(line), -1); len(parts) > 0 {
			for i := range parts {
				parts[i] = strings.TrimSpace(parts[i])
			}
			parts[len(parts)-1] += "\n"
			source = append(source, parts...)
		}
	}
	if len(source) == 0 {
		source = []string{noise + "\n"}
	}
	var out []string
	next := r.IntN(len(source))
	// Clauses counted one by one may have other tokens than the whole text:
	// take what seems to be missing until the whole has enough.
	for {
		total, err := o.Count(strings.Join(slices.Concat(needles, out), " "))
		if err != nil || total >= o.Tokens {
			return out, err
		}
		for total < o.Tokens {
			n, err := o.Count(source[next])
			if err != nil {
				return nil, err
			}
			if n == 0 {
				return nil, errors.New("a clause of the filler has no tokens")
			}
			total += n
			out = append(out, source[next])
			next = (next + 1) % len(source)
		}
	}
}

// weave joins the filler with each needle before the clause of its place.
func weave(filler, needles []string, at []int) string {
	order := make([]int, len(needles))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return at[a] - at[b] })
	var b strings.Builder
	add := func(s string) {
		if t := b.String(); t != "" && t[len(t)-1] != '\n' {
			b.WriteByte(' ')
		}
		b.WriteString(s)
	}
	for i := 0; i <= len(filler); i++ {
		for len(order) > 0 && at[order[0]] == i {
			add(needles[order[0]])
			order = order[1:]
		}
		if i < len(filler) {
			add(filler[i])
		}
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}
