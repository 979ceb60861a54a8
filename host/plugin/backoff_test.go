package plugin

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/retrieval"
)

func TestBackoff(t *testing.T) {
	now := time.Unix(0, 0)
	b := backoff{now: func() time.Time { return now }}
	for i, want := range []time.Duration{0, 0, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000} {
		if b.resting() {
			t.Fatalf("failure %d: rests before it", i)
		}
		rest := b.record(false)
		if rest != want*time.Millisecond || b.resting() != (rest > 0) {
			t.Errorf("failure %d: rests %v, want %v", i, rest, want*time.Millisecond)
		}
		now = now.Add(rest)
	}
	for range 100 {
		b.record(false)
	}
	if rest := b.record(false); rest != longestRest {
		t.Errorf("rests %v in the end", rest)
	}
	b.record(true)
	if b.resting() || b.record(false) != 0 {
		t.Error("a success is forgotten")
	}
}

// A plugin that fails in every search is not asked while it rests, all
// searches are answered exactly, and it is asked again afterwards.
func TestFailingPluginRests(t *testing.T) {
	now := time.Unix(0, 0)
	p := load(t, Options{Bytes: newGuest().search(unreachable).module(), OnFailure: Fallback, Instances: 1})
	p.backoff.now = func() time.Time { return now }
	call := newCall(small, 1, newView(t, small, 1))
	var got, want retrieval.Result
	if err := retrieval.NewFlat(compute.NewCPU()).Search(t.Context(), call, &want); err != nil {
		t.Fatal(err)
	}
	search := func() {
		t.Helper()
		if err := p.Search(t.Context(), call, &got); err != nil {
			t.Fatal(err)
		}
		sameHits(t, &got, &want)
	}
	for range 10 {
		search()
	}
	if s := p.Stats(); s.Failures != failuresBeforeRest || s.Fallbacks != 10 {
		t.Errorf("%+v", s)
	}
	now = now.Add(firstRest)
	search()
	if s := p.Stats(); s.Failures != failuresBeforeRest+1 || s.Fallbacks != 11 {
		t.Errorf("after the rest: %+v", s)
	}
}

func TestWorkLimit(t *testing.T) {
	g := newGuest("score_range")
	g.search(forever(g.call("score_range", 0, 1, 0, 200, atOut)))
	p := load(t, Options{Bytes: g.module(), Limits: Limits{Work: 1e7}, Instances: 1})
	var res retrieval.Result
	err := p.Search(t.Context(), newCall(small, 1, newView(t, small, 1)), &res)
	if !errors.Is(err, ErrWork) || !strings.Contains(err.Error(), "work limit exceeded: score_range: ra_search asked for more than 10000000 multiply-adds; raise limits.work") {
		t.Error(err)
	}
}
