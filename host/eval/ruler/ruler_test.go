package ruler

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func words(s string) (int, error) { return len(strings.Fields(s)), nil }

func TestNew(t *testing.T) {
	prose := "In the beginning. And the earth was without form, and void; and darkness.\nAnd God said: Let there be light.\n"
	for _, c := range []struct {
		keys  int
		prose string
	}{{1, prose}, {1, ""}, {8, prose}, {3, ""}} {
		o := Options{Tokens: 500, Keys: c.keys, Prose: c.prose, Seed: 7, Depth: -1, Count: words}
		for i := range 10 {
			o.Words = append(o.Words, fmt.Sprintf("word-%d", i))
		}
		a, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := New(o)
		if *a != *b {
			t.Error("the same options gave two tasks")
		}
		o.Seed++
		if b, _ = New(o); a.Document == b.Document {
			t.Error("two seeds gave one document")
		}
		if n, _ := words(a.Document); n < 500 || n > 540 {
			t.Errorf("%d tokens", n)
		}
		if got := strings.Count(a.Document, "One of the special magic numbers for word-"); got != c.keys {
			t.Errorf("%d needles, want %d", got, c.keys)
		}
		word := strings.Fields(strings.SplitN(a.Question, " for ", 2)[1])[0]
		if a.Question != Question(word) || strings.Count(a.Document, needle(word, a.Answer)) != 1 || len(a.Answer) != 7 {
			t.Errorf("question %q, answer %q", a.Question, a.Answer)
		}
		// Without the needles the haystack is whole clauses of the source.
		if strings.Contains(a.Document, "  ") || strings.Contains(a.Document, "\n\n") || !strings.HasSuffix(a.Document, ".\n") && !strings.HasSuffix(a.Document, ";\n") && !strings.HasSuffix(a.Document, ":\n") {
			t.Errorf("document ends in %q", a.Document[len(a.Document)-20:])
		}
	}
}

func TestDepth(t *testing.T) {
	for _, depth := range []float64{0, 0.5, 1} {
		task, err := New(Options{Tokens: 2000, Keys: 1, Words: []string{"w"}, Depth: depth, Count: words})
		if err != nil {
			t.Fatal(err)
		}
		at := float64(strings.Index(task.Document, "One of")) / float64(len(task.Document))
		if at < depth-0.05 || at > depth+0.05 {
			t.Errorf("needle at %v of the document, want %v", at, depth)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, o := range []Options{
		{Keys: 0, Words: []string{"a"}, Count: words},
		{Keys: 2, Words: []string{"a"}, Count: words},
		{Keys: 1, Words: []string{"a"}, Tokens: 10, Count: func(string) (int, error) { return 0, errors.New("no") }},
		{Keys: 1, Words: []string{"a"}, Tokens: 10, Count: func(string) (int, error) { return 0, nil }},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}
