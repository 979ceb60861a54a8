// Package conformance checks that a search strategy, in whatever form it is
// loaded, keeps the contract of retrieval.Strategy: valid hits on every shape
// of call, tokens that are found once they were appended, the same answer to
// the same question, an end when the caller wants one, and no growth.
//
// In a Go test:
//
//	conformance.Test(t, conformance.Options{New: func(ctx context.Context) (retrieval.Strategy, error) { ... }})
//
// [Run] is the same for programs; `ra plugin test` is one. What is exact and
// what is approximate is told apart by [Options.MinRecall].
package conformance

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/retrievalattention/ra/host/retrieval"
)

// Options say what is checked and how strictly.
type Options struct {
	// New returns a fresh strategy. The suite closes it.
	New func(ctx context.Context) (retrieval.Strategy, error)
	// MinRecall is the least share of the exact top-k that must be found on
	// easy keys (random, few). Default 0.5; 1 says that the strategy is exact.
	MinRecall float64
	// Calls is how many searches the growth check makes. Default 4,000.
	Calls int
	// Memory, when not nil, returns the bytes that a strategy holds, such as
	// the linear memory of its instances. Without it growth is not checked.
	Memory func(retrieval.Strategy) int64
	// Seed of the data. The default is 1.
	Seed uint64
}

func (o *Options) complete() {
	if o.MinRecall == 0 {
		o.MinRecall = 0.5
	}
	if o.Calls == 0 {
		o.Calls = 4000
	}
	if o.Seed == 0 {
		o.Seed = 1
	}
}

// Check is one property.
type Check struct {
	Name string
	Doc  string // one line: what must hold
	run  func(*env) error
}

// errSkip marks a check that does not apply; the text says why.
var errSkip = errors.New("not applicable")

// Result is the outcome of one check.
type Result struct {
	Name    string  `json:"name"`
	Doc     string  `json:"doc"`
	Passed  bool    `json:"passed"`
	Skipped string  `json:"skipped,omitempty"` // why
	Failure string  `json:"failure,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Report is the outcome of a run.
type Report struct {
	Plugin  retrieval.Info `json:"plugin"`
	Results []Result       `json:"results"`
}

// Passed reports whether no check failed.
func (r *Report) Passed() bool { return r.Failed() == 0 }

// Failed returns the number of checks that failed.
func (r *Report) Failed() int {
	n := 0
	for _, c := range r.Results {
		if c.Failure != "" {
			n++
		}
	}
	return n
}

// Run runs all checks, each on a fresh strategy. It ends early when ctx does.
func Run(ctx context.Context, o Options) (*Report, error) {
	o.complete()
	r := &Report{}
	for _, c := range Checks() {
		res, info := runCheck(ctx, c, &o)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if info.Name != "" {
			r.Plugin = info
		}
		r.Results = append(r.Results, res)
	}
	return r, nil
}

// runCheck runs one check and turns a panic into a failure.
func runCheck(ctx context.Context, c Check, o *Options) (res Result, info retrieval.Info) {
	res = Result{Name: c.Name, Doc: c.Doc}
	start := time.Now()
	err := func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("it panicked: %v", p)
			}
		}()
		s, err := o.New(ctx)
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
		info = s.Info()
		e := newEnv(ctx, s, o)
		err = c.run(e)
		return errors.Join(err, e.close(), s.Close())
	}()
	res.Seconds = time.Since(start).Seconds()
	switch {
	case err == nil:
		res.Passed = true
	case errors.Is(err, errSkip):
		res.Skipped = err.Error()
	default:
		res.Failure = err.Error()
	}
	return res, info
}

// Test runs all checks as subtests.
func Test(t *testing.T, o Options) {
	t.Helper()
	o.complete()
	for _, c := range Checks() {
		t.Run(c.Name, func(t *testing.T) {
			res, _ := runCheck(t.Context(), c, &o)
			switch {
			case res.Skipped != "":
				t.Skip(res.Skipped)
			case res.Failure != "":
				t.Errorf("%s: %s", c.Doc, res.Failure)
			}
		})
	}
}

// WriteJUnit writes the report in the XML form that CI systems read.
func (r *Report) WriteJUnit(w io.Writer) error {
	type failure struct {
		Message string `xml:"message,attr"`
	}
	type testCase struct {
		Name    string   `xml:"name,attr"`
		Class   string   `xml:"classname,attr"`
		Time    string   `xml:"time,attr"`
		Failure *failure `xml:"failure,omitempty"`
		Skipped *failure `xml:"skipped,omitempty"`
	}
	suite := struct {
		XMLName  xml.Name   `xml:"testsuite"`
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Cases    []testCase `xml:"testcase"`
	}{Name: r.Plugin.String(), Tests: len(r.Results), Failures: r.Failed()}
	for _, c := range r.Results {
		tc := testCase{Name: c.Name, Class: "conformance", Time: fmt.Sprintf("%.3f", c.Seconds)}
		if c.Failure != "" {
			tc.Failure = &failure{c.Failure}
		}
		if c.Skipped != "" {
			tc.Skipped = &failure{c.Skipped}
		}
		suite.Cases = append(suite.Cases, tc)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(suite); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
