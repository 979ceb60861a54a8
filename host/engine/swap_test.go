package engine

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
)

// tenant fails when it is used after it was closed.
type tenant struct {
	retrieval.Strategy
	closed   atomic.Bool
	searches atomic.Int64
}

func (s *tenant) Build(context.Context, *retrieval.Build) error {
	if s.closed.Load() {
		return fmt.Errorf("build after close")
	}
	return nil
}

func (s *tenant) Append(context.Context, *kv.View, int, kv.Range) error {
	if s.closed.Load() {
		return fmt.Errorf("append after close")
	}
	return nil
}

func (s *tenant) Search(ctx context.Context, call *retrieval.Call, res *retrieval.Result) error {
	if s.closed.Load() {
		return fmt.Errorf("search after close")
	}
	s.searches.Add(1)
	return s.Strategy.Search(ctx, call, res)
}

// A strategy is replaced while documents are answered: none fails, each stays
// with the strategy that indexed it, and the former one is free once the last
// of its documents is closed.
func TestSwapStrategy(t *testing.T) {
	flat := retrieval.NewFlat(compute.NewCPU())
	strategies := []*tenant{{Strategy: flat}, {Strategy: flat}, {Strategy: flat}}
	e := testEngine(t, 4, 2, func(o *Options) { o.Strategy = strategies[0] })
	ctx := context.Background()
	prefill := func(seed uint64) *Document {
		d, err := e.Prefill(ctx, randomTokens(seed, 80), PrefillOptions{Modes: []Mode{Retrieval}})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	answer := func(d *Document) {
		if _, err := d.Answer(ctx, AnswerOptions{Mode: Retrieval, Question: randomTokens(9, 70), MaxTokens: 20, Sampler: greedy{}}); err != nil {
			t.Error(err)
		}
	}
	for round, next := range strategies[1:] {
		docs := []*Document{prefill(1), prefill(2)}
		started, proceed := make(chan struct{}, 4), make(chan struct{})
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				answer(docs[i%2]) // before, or beside
				started <- struct{}{}
				<-proceed
				answer(docs[i%2]) // after the swap
			})
		}
		<-started
		done := e.SwapStrategy(next)
		close(proceed)
		wg.Wait()
		if next.searches.Load() != 0 {
			t.Errorf("round %d: documents of the former strategy moved to the next one", round)
		}
		select {
		case <-done:
			t.Errorf("round %d: drained while its documents live", round)
		default:
		}
		for _, d := range docs {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
			if err := d.Close(); err != nil {
				t.Errorf("closed twice: %v", err)
			}
		}
		<-done
		strategies[round].closed.Store(true)
		if _, err := docs[0].Answer(ctx, AnswerOptions{Mode: Retrieval, Question: randomTokens(9, 2), MaxTokens: 1, Sampler: greedy{}}); err == nil {
			t.Error("a closed document answers")
		}
	}
	d := prefill(3)
	answer(d)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	for i, s := range strategies {
		if s.searches.Load() == 0 {
			t.Errorf("strategy %d was not used", i)
		}
	}
}
