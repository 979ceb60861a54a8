package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/placement"
	"github.com/retrievalattention/ra/host/retrieval"
	"github.com/retrievalattention/ra/host/sched"
)

// PrefillOptions say what a document is prepared for.
type PrefillOptions struct {
	// Modes are those that answers will use. The search index is built when
	// Retrieval is among them.
	Modes []Mode
	// Room is how many tokens the longest question and its answer will need:
	// what would not fit is refused before the work begins.
	Room int
	// Progress, when not nil, is told of work done in units of one token
	// through one layer; Layers x tokens are the whole. Calls come one at a
	// time.
	Progress func(units int)
}

// Document is a prefilled token sequence that can be asked questions. It is
// safe for concurrent use.
type Document struct {
	engine *Engine
	tenure *tenure // of the strategy that indexed it
	closed atomic.Bool
	kvc    *kv.Context
	views  map[Mode]*kv.View
	tokens []int32
	// PrefillSeconds is the wall-clock time of the prefill, index building
	// included.
	PrefillSeconds float64
}

// Tokens returns the number of tokens of the document.
func (d *Document) Tokens() int { return len(d.tokens) }

// Close releases the document's keys, values and search indexes. Answers
// under way keep theirs. Closing it again does nothing.
func (d *Document) Close() error {
	if d.closed.Swap(true) {
		return nil
	}
	defer d.tenure.leave()
	var errs []error
	for _, v := range d.views {
		errs = append(errs, v.Close())
	}
	return errors.Join(append(errs, d.kvc.Close())...)
}

// Prefill runs tokens through the model with exact causal attention and
// stores their keys and values. The memory for them is claimed before work
// begins.
func (e *Engine) Prefill(ctx context.Context, tokens []int32, o PrefillOptions) (*Document, error) {
	if len(tokens) == 0 {
		return nil, ErrEmptyPrompt
	}
	if room := max(o.Room, 1); len(tokens)+room > e.o.MaxContext {
		return nil, e.tooLong(len(tokens), room)
	}
	tenure := e.tenant()
	keep := keepsQueries(tenure.strategy, o.Modes)
	if err := e.checkMemory(tenure.strategy, len(tokens), keep, o); err != nil {
		tenure.leave()
		return nil, err
	}
	kvc, err := kv.NewContext(e.geometry(), len(tokens), e.o.Memory)
	if err != nil {
		tenure.leave()
		return nil, err
	}
	d := &Document{engine: e, tenure: tenure, kvc: kvc, views: map[Mode]*kv.View{}, tokens: slices.Clone(tokens)}
	start := time.Now()
	if err := d.prefill(ctx, keep, o); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.PrefillSeconds = time.Since(start).Seconds()
	return d, nil
}

// geometry is the shape of the stored keys and values.
func (e *Engine) geometry() kv.Geometry { return e.o.Model.Spec().Geometry(e.o.DType) }

// keepsQueries reports whether the strategy builds its index from the
// prefill's queries.
func keepsQueries(s retrieval.Strategy, modes []Mode) bool {
	user, ok := s.(retrieval.QueryUser)
	return ok && user.UsesPrefillQueries() && slices.Contains(modes, Retrieval)
}

// queryBytes is the memory of the queries of n tokens of one layer.
func (e *Engine) queryBytes(n int) int64 {
	spec := e.o.Model.Spec()
	return 4 * int64(n) * int64(spec.Heads) * int64(spec.HeadDim)
}

// checkMemory refuses a prefill of n tokens that would not fit with all that
// comes after it.
func (e *Engine) checkMemory(strategy retrieval.Strategy, n int, keep bool, o PrefillOptions) error {
	geo := e.geometry()
	document, err := geo.GrowthBytes(n)
	if err != nil {
		return err
	}
	answer, err := geo.GrowthBytes(o.Room)
	if err != nil {
		return err
	}
	needs := []kv.Need{{What: "the document", Bytes: document}, {What: "an answer", Bytes: answer}}
	if keep {
		held := min(queriesHeld, e.o.Model.Spec().Layers)
		needs = append(needs, kv.Need{What: kv.Queries.String(), Bytes: int64(held) * e.queryBytes(n)})
	}
	if s, ok := strategy.(retrieval.IndexSizer); ok && slices.Contains(o.Modes, Retrieval) {
		needs = append(needs, kv.Need{What: "the " + kv.Index.String(), Bytes: s.IndexBytes(geo, n+o.Room)})
	}
	return e.o.Memory.Check(needs...)
}

// queriesHeld is of how many layers queries are kept at a time: of the one
// that computes and of the one whose index is being built.
const queriesHeld = 2

func (d *Document) prefill(ctx context.Context, keep bool, o PrefillOptions) (err error) {
	e, n, strategy := d.engine, len(d.tokens), d.tenure.strategy
	spec := e.o.Model.Spec()
	for _, m := range o.Modes {
		d.views[m] = kv.NewView(d.kvc)
		d.views[m].Extend(n)
	}
	view := d.views[Retrieval]
	if view != nil && strategy == nil {
		return errors.New("retrieval attention needs a search strategy")
	}
	stream, err := e.o.Model.Embed(d.tokens)
	if err != nil {
		return err
	}
	defer stream.Close()
	var kept [queriesHeld]*kv.Region
	defer func() {
		for _, r := range kept {
			if r != nil {
				err = errors.Join(err, r.Release())
			}
		}
	}()
	leave := sched.Enter()
	defer func() { leave() }()
	// The build of one layer runs beside the next layer's prefill; no more
	// than one at a time.
	building := make(chan error, 1)
	building <- nil
	built := func() error {
		leave() // this goroutine's core is free while it waits
		err := <-building
		leave = sched.Enter()
		if err != nil {
			return fmt.Errorf("build the search index: %w", err)
		}
		return nil
	}
	for l := range spec.Layers {
		var queries []float32
		if keep {
			r := &kept[l%queriesHeld]
			if *r == nil {
				if *r, err = e.o.Memory.Alloc(e.queryBytes(n), kv.Queries); err != nil {
					return errors.Join(err, built())
				}
			}
			queries = kv.Slice[float32](*r, 0, e.queryBytes(n)/4)
		}
		err := e.o.Model.Prefill(ctx, stream, l, 0, d.kvc, queries, o.Progress)
		if err == nil {
			err = d.place(ctx, l)
		}
		if err := built(); err != nil {
			return err
		}
		if err != nil {
			return fmt.Errorf("prefill layer %d: %w", l, err)
		}
		go func() {
			if view == nil || view.Count(l, kv.Indexed) == 0 {
				building <- nil
				return
			}
			leave := sched.Enter()
			err := strategy.Build(ctx, &retrieval.Build{View: view, Layer: l, Heads: spec.Heads, Queries: queries})
			leave()
			building <- err
		}()
	}
	if err := built(); err != nil {
		return err
	}
	d.kvc.Commit(n)
	return nil
}

// place places one layer of every view after its prefill.
func (d *Document) place(ctx context.Context, layer int) error {
	for m, v := range d.views {
		if m == Full {
			continue
		}
		if _, err := d.engine.place(ctx, &placement.Call{View: v, Layer: layer, Prefill: v.Len()}, m); err != nil {
			return err
		}
	}
	return nil
}

// place asks the policy about one layer and moves its tokens; it returns what
// became indexed.
func (e *Engine) place(ctx context.Context, call *placement.Call, mode Mode) ([]kv.Range, error) {
	moves, err := e.o.Policy.Place(ctx, call)
	if err == nil {
		err = placement.Check(call, moves)
	}
	if err != nil {
		return nil, fmt.Errorf("placement policy %s, layer %d: %w", e.o.Policy.Info(), call.Layer, err)
	}
	return placement.Apply(call, moves, mode == Retrieval), nil
}

// tooLong is the error for a document that leaves less than room tokens for
// question and answer.
func (e *Engine) tooLong(document, room int) error {
	return fmt.Errorf("%w: %d tokens of document and %d for question and answer are %d, the limit is %d; shorten the prompt, lower generate.max_tokens, or raise model.max_context if the model allows it",
		ErrPromptTooLong, document, room, document+room, e.o.MaxContext)
}
