// Command sinkwindow is RetrievalAttention's placement as a plugin: the first
// tokens and a sliding window of the last ones stay static, those between
// them are indexed.
package main

import (
	"errors"
	"strconv"
	"strings"

	ra "github.com/retrievalattention/ra/sdk/go"
)

// sizes are the tokens that stay static at the beginning and at the end.
type sizes struct{ sink, window int }

// exception is the sizes of the layers first to last.
type exception struct {
	first, last int
	sizes
}

// sinkwindow keeps nothing but its parameters.
type sinkwindow struct {
	sizes
	exceptions []exception
}

func init() {
	ra.RegisterPolicy(ra.Description{
		Name:    "sinkwindow",
		Version: "1.0.0",
		Doc:     "keeps the first tokens and a sliding window static and indexes those between them",
		Parameters: []ra.Parameter{
			{Name: "sink", Type: "int", Min: 0, Max: 1 << 20, Default: 128, Doc: "first tokens that stay in the static set"},
			{Name: "window", Type: "int", Min: 1, Max: 1 << 20, Default: 512, Doc: "last tokens that stay in the static set"},
			{Name: "layers", Type: "string", Default: "", Doc: "other sizes for some layers, as FIRST-LAST=SINK/WINDOW, apart by commas"},
		},
	}, &sinkwindow{})
}

func main() {}

// Configure takes the parameters.
func (s *sinkwindow) Configure(p ra.Params) error {
	s.sizes = sizes{p.Int("sink"), p.Int("window")}
	s.exceptions = nil
	for text := range strings.SplitSeq(p.String("layers"), ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		e, err := parseException(text)
		if err != nil {
			return err
		}
		s.exceptions = append(s.exceptions, e)
	}
	return nil
}

// parseException reads "0-1=128/4096" or "5=0/64".
func parseException(text string) (e exception, err error) {
	layers, value, ok := strings.Cut(text, "=")
	sink, window, both := strings.Cut(value, "/")
	first, last, several := strings.Cut(layers, "-")
	if !several {
		last = first
	}
	number := func(s string, least int) int {
		n, e := strconv.Atoi(strings.TrimSpace(s))
		if e != nil || n < least || n > 1<<20 {
			ok = false
		}
		return n
	}
	e = exception{number(first, 0), number(last, 0), sizes{number(sink, 0), number(window, 1)}}
	if !ok || !both || e.last < e.first {
		return e, errors.New("layers: " + strconv.Quote(text) + " is not FIRST-LAST=SINK/WINDOW, as in 0-1=128/4096")
	}
	return e, nil
}

// Place indexes the static tokens between sink and window.
func (s *sinkwindow) Place(layer int) error {
	z := s.sizes
	for _, e := range s.exceptions {
		if e.first <= layer && layer <= e.last {
			z = e.sizes
		}
	}
	end := ra.PlaceInfo().Tokens - z.window
	ranges := make([]ra.Range, ra.StateRanges(ra.Static, nil))
	ra.StateRanges(ra.Static, ranges)
	for _, r := range ranges {
		if lo, hi := max(z.sink, int(r.Lo)), min(end, int(r.Hi)); lo < hi {
			ra.Place(ra.Indexed, lo, hi)
		}
	}
	return nil
}
