package conformance

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/retrieval"
)

// Checks returns all checks, in the order in which they run.
func Checks() []Check {
	return []Check{
		{"identity", "it has a name and a version", checkIdentity},
		{"shapes", "hits are valid for every group size, head dimension, dtype, number of tokens and of sequences", checkShapes},
		{"few-keys", "with no key, one key, or fewer keys than top-k, hits are valid and nothing is missing when all keys are wanted", checkFewKeys},
		{"top-0", "no hits are returned when none are wanted", checkTopZero},
		{"recall", "on random keys it finds at least the promised share of the exact top-k", checkRecall},
		{"best", "the best key by far, among good neighbours, is found", checkBest},
		{"duplicates", "among identical keys each token is returned at most once", checkDuplicates},
		{"not-finite", "keys and queries with NaN and infinities end in valid hits, and finite keys are still found", checkNotFinite},
		{"append", "a token is found once it was appended", checkAppend},
		{"forks", "two continuations of one sequence do not see each other's tokens", checkForks},
		{"determinism", "the same call has the same answer, again and on a fresh instance", checkDeterminism},
		{"concurrency", "searches and appends on different sequences run at the same time", checkConcurrency},
		{"cancellation", "a cancelled call ends, and the next one works", checkCancellation},
		{"growth", "memory does not grow with the number of searches", checkGrowth},
	}
}

func checkIdentity(e *env) error {
	if i := e.strategy.Info(); i.Name == "" || i.Version == "" || i.Runtime == "" {
		return fmt.Errorf("it describes itself as %+v", i)
	}
	return nil
}

func checkShapes(e *env) error {
	for _, s := range []shape{
		{1, 1, 64, kernel.F32, 300, 4, 16, 10},
		{2, 2, 64, kernel.BF16, 300, 4, 16, 10},
		{1, 8, 128, kernel.F16, 300, 0, 1, 100},
		{3, 3, 80, kernel.BF16, 200, 4, 16, 7},
		{1, 16, 96, kernel.BF16, 200, 4, 16, 10},
	} {
		q, err := e.prefill(s, nil)
		if err != nil {
			return fmt.Errorf("%+v: %w", s, err)
		}
		other := e.fork(q)
		if err := e.decode(other, 130, nil); err != nil {
			return fmt.Errorf("%+v: %w", s, err)
		}
		for _, tokens := range []int{1, 5} {
			for _, seqs := range [][]*sequence{{q}, {q, other}} {
				if _, err := e.search(e.call(tokens, seqs...)); err != nil {
					return fmt.Errorf("%+v, %d sequences of %d tokens: %w", s, len(seqs), tokens, err)
				}
			}
		}
	}
	return nil
}

func checkFewKeys(e *env) error {
	for _, indexed := range []int{0, 1, 2, 7, 19} {
		s := usual
		s.tokens = s.sink + indexed + s.window
		q, err := e.prefill(s, nil)
		if err != nil {
			return fmt.Errorf("%d keys: %w", indexed, err)
		}
		c := e.call(2, q)
		res, err := e.search(c)
		if err != nil {
			return fmt.Errorf("%d keys: %w", indexed, err)
		}
		if e.o.MinRecall == 1 {
			for i, h := range res.Hits {
				if len(h.IDs) != indexed {
					return fmt.Errorf("%d keys: query %d has %d hits", indexed, i, len(h.IDs))
				}
			}
		}
	}
	return nil
}

func checkTopZero(e *env) error {
	q, err := e.prefill(usual, nil)
	if err != nil {
		return err
	}
	c := e.call(1, q)
	c.TopK = 0
	_, err = e.search(c)
	return err
}

func checkRecall(e *env) error {
	for _, dim := range []int{64, 128} {
		s := usual
		s.dim, s.tokens = dim, 2000
		q, err := e.prefill(s, nil)
		if err != nil {
			return err
		}
		c := e.call(4, q)
		res, err := e.search(c)
		if err != nil {
			return err
		}
		recall, err := e.recall(c, res)
		if err != nil {
			return err
		}
		if recall < e.o.MinRecall {
			return fmt.Errorf("head dimension %d: %.3f of the exact top-%d found, want %.3f", dim, recall, s.topK, e.o.MinRecall)
		}
	}
	return nil
}

// reach is how far the neighbourhood of a best key extends.
const reach = 16

// peak returns an edit that makes the key at a position far the best for a
// query, and its neighbours good: what lies close in a sequence is often
// alike, and approximate searches may count on it.
func peak(query []float32, at int) func(head, pos int, key []float32) {
	return func(_, pos int, key []float32) {
		d := max(pos-at, at-pos)
		if d > reach {
			return
		}
		for i, v := range query {
			key[i] = v * (3 - float32(d)/10)
		}
	}
}

// finds returns an error unless the answer to every query holds the token.
func finds(res *retrieval.Result, token int) error {
	for i, h := range res.Hits {
		if !slices.Contains(h.IDs, uint32(token)) {
			return fmt.Errorf("query %d: token %d is far the best and not among the hits", i, token)
		}
	}
	return nil
}

// same gives all queries of a call one value.
func same(c *retrieval.Call, query []float32) {
	for i := range c.Count() {
		copy(c.Query(i), query)
	}
}

func checkBest(e *env) error {
	query := e.vector(usual.dim)
	const at = 333
	q, err := e.prefill(usual, peak(query, at))
	if err != nil {
		return err
	}
	c := e.call(1, q)
	same(c, query)
	res, err := e.search(c)
	if err != nil {
		return err
	}
	return finds(res, at)
}

func checkDuplicates(e *env) error {
	one := e.vector(usual.dim)
	for _, distinct := range []int{1, 3} {
		q, err := e.prefill(usual, func(_, pos int, key []float32) {
			copy(key, one)
			key[0] = float32(pos % distinct)
		})
		if err != nil {
			return fmt.Errorf("%d distinct keys: %w", distinct, err)
		}
		res, err := e.search(e.call(1, q))
		if err != nil {
			return fmt.Errorf("%d distinct keys: %w", distinct, err)
		}
		for i, h := range res.Hits {
			if e.o.MinRecall == 1 && len(h.IDs) != usual.topK {
				return fmt.Errorf("%d distinct keys: query %d has %d hits", distinct, i, len(h.IDs))
			}
		}
	}
	return nil
}

func checkNotFinite(e *env) error {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	query := e.vector(usual.dim)
	const at = 400
	best := peak(query, at)
	q, err := e.prefill(usual, func(head, pos int, key []float32) {
		best(head, pos, key)
		switch {
		case pos%50 == 21:
			key[3] = nan
		case pos%50 == 22:
			key[5] = -inf
		}
	})
	if err != nil {
		return err
	}
	c := e.call(1, q)
	same(c, query)
	res, err := e.search(c)
	if err != nil {
		return err
	}
	if e.o.MinRecall == 1 {
		if err := finds(res, at); err != nil {
			return err
		}
	}
	for _, bad := range []float32{nan, inf, -inf} {
		c := e.call(1, q)
		c.Query(0)[7] = bad
		if _, err := e.search(c); err != nil {
			return fmt.Errorf("query with %v: %w", bad, err)
		}
	}
	return nil
}

func checkAppend(e *env) error {
	q, err := e.prefill(usual, nil)
	if err != nil {
		return err
	}
	for round := range 4 {
		query := e.vector(usual.dim)
		at := q.kvc.Len() + 2*reach
		if err := e.decode(q, usual.window+64, peak(query, at)); err != nil {
			return fmt.Errorf("append %d: %w", round, err)
		}
		c := e.call(1, q)
		same(c, query)
		res, err := e.search(c)
		if err != nil {
			return fmt.Errorf("after append %d: %w", round, err)
		}
		if err := finds(res, at); err != nil {
			return fmt.Errorf("after append %d: %w", round, err)
		}
	}
	return nil
}

func checkForks(e *env) error {
	base, err := e.prefill(usual, nil)
	if err != nil {
		return err
	}
	const forks = 3
	var queries [forks][]float32
	var seqs [forks]*sequence
	at := base.kvc.Len() + 2*reach
	for i := range forks {
		queries[i], seqs[i] = e.vector(usual.dim), e.fork(base)
	}
	for i, s := range seqs {
		if err := e.decode(s, usual.window+64*(i+1), peak(queries[i], at)); err != nil {
			return err
		}
	}
	for i, s := range seqs {
		c := e.call(1, s)
		same(c, queries[i])
		res, err := e.search(c)
		if err != nil {
			return fmt.Errorf("continuation %d: %w", i, err)
		}
		if err := finds(res, at); err != nil {
			return fmt.Errorf("continuation %d: %w", i, err)
		}
	}
	// The base has none of their tokens: an id of theirs would be invalid.
	c := e.call(1, base)
	same(c, queries[0])
	_, err = e.search(c)
	return err
}

// equal compares two answers, order aside.
func equal(a, b *retrieval.Result) error {
	for i := range a.Hits {
		x, y := slices.Clone(a.Hits[i].IDs), slices.Clone(b.Hits[i].IDs)
		slices.Sort(x)
		slices.Sort(y)
		if !slices.Equal(x, y) {
			return fmt.Errorf("query %d: %v at first, %v later", i, x, y)
		}
	}
	return nil
}

func checkDeterminism(e *env) error {
	q, err := e.prefill(usual, nil)
	if err != nil {
		return err
	}
	c := e.call(3, q)
	first, err := e.search(c)
	if err != nil {
		return err
	}
	for range 3 {
		if _, err := e.search(e.call(2, q)); err != nil { // something else in between
			return err
		}
		again, err := e.search(c)
		if err != nil {
			return err
		}
		if err := equal(first, again); err != nil {
			return fmt.Errorf("the same call again: %w", err)
		}
	}
	fresh, err := e.o.New(e.ctx)
	if err != nil {
		return err
	}
	used := e.strategy
	e.strategy = fresh
	defer func() { e.strategy = used }()
	b := &retrieval.Build{View: q.view, Layer: layer, Heads: c.Heads, Queries: q.queries}
	again, err := func() (*retrieval.Result, error) {
		if err := fresh.Build(e.ctx, b); err != nil {
			return nil, err
		}
		return e.search(c)
	}()
	if err := errors.Join(err, fresh.Close()); err != nil {
		return err
	}
	if err := equal(first, again); err != nil {
		return fmt.Errorf("on a fresh instance: %w", err)
	}
	return nil
}

func checkConcurrency(e *env) error {
	base, err := e.prefill(usual, nil)
	if err != nil {
		return err
	}
	const workers, rounds = 4, 12
	type job struct {
		seq  *sequence
		call *retrieval.Call
	}
	var jobs []job
	for range workers {
		s := e.fork(base)
		if err := s.kvc.Reserve(rounds * 64); err != nil {
			return err
		}
		jobs = append(jobs, job{s, e.call(1, base)})
	}
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for i, j := range jobs {
		wg.Go(func() {
			own := newEnv(e.ctx, e.strategy, e.o)
			defer own.backend.Close()
			for range rounds {
				if errs[i] == nil {
					errs[i] = own.decode(j.seq, 64, nil)
				}
				if errs[i] == nil {
					j.call.Views[0] = j.seq.view
					_, errs[i] = own.search(j.call)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// patience is how long a cancelled call may take: far more than any honest
// one needs, for the machine may be busy.
const patience = 20 * time.Second

func checkCancellation(e *env) error {
	q, err := e.prefill(usual, nil)
	if err != nil {
		return err
	}
	c := e.call(1, q)
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	done := make(chan error, 1)
	go func() {
		var res retrieval.Result
		done <- e.strategy.Search(ctx, c, &res)
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-done:
		if err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("a cancelled search returned %w", err)
		}
	case <-timer.C:
		return fmt.Errorf("a cancelled search has not returned after %v", patience)
	}
	if _, err := e.search(c); err != nil {
		return fmt.Errorf("after a cancelled search: %w", err)
	}
	return nil
}

func checkGrowth(e *env) error {
	if e.o.Memory == nil {
		return fmt.Errorf("%w: nothing tells the memory of this strategy", errSkip)
	}
	s := usual
	s.tokens = 200
	q, err := e.prefill(s, nil)
	if err != nil {
		return err
	}
	c := e.call(1, q)
	var early int64
	for i := range e.o.Calls {
		if _, err := e.search(c); err != nil {
			return err
		}
		if i == e.o.Calls/2 {
			early = e.o.Memory(e.strategy)
		}
	}
	if late := e.o.Memory(e.strategy); late > early+early/8 {
		return fmt.Errorf("%d bytes after %d searches, %d after %d", early, e.o.Calls/2, late, e.o.Calls)
	}
	return nil
}
