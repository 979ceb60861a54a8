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

// Close releases the document's keys and values. Answers under way keep
// theirs. Closing it again does nothing.
func (d *Document) Close() error {
	if d.closed.Swap(true) {
		return nil
	}
	defer d.tenure.leave()
	return d.kvc.Close()
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
	spec := e.o.Model.Spec()
	kvc, err := kv.NewContext(spec.Geometry(e.o.DType), len(tokens), e.o.Memory)
	if err != nil {
		return nil, err
	}
	if err := kvc.CheckFork(o.Room); err != nil {
		return nil, errors.Join(err, kvc.Close())
	}
	d := &Document{engine: e, tenure: e.tenant(), kvc: kvc, views: map[Mode]*kv.View{}, tokens: slices.Clone(tokens)}
	start := time.Now()
	if err := d.prefill(ctx, o); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.PrefillSeconds = time.Since(start).Seconds()
	return d, nil
}

func (d *Document) prefill(ctx context.Context, o PrefillOptions) error {
	e, n, strategy := d.engine, len(d.tokens), d.tenure.strategy
	spec := e.o.Model.Spec()
	for _, m := range o.Modes {
		d.views[m] = kv.NewView(d.kvc)
		d.views[m].Extend(n)
	}
	stream, err := e.o.Model.Embed(d.tokens)
	if err != nil {
		return err
	}
	defer stream.Close()
	view := d.views[Retrieval]
	if view != nil && strategy == nil {
		return errors.New("retrieval attention needs a search strategy")
	}
	user, ok := strategy.(retrieval.QueryUser)
	keep := ok && user.UsesPrefillQueries()
	// The build of one layer runs beside the next layer's prefill; no more
	// than one at a time, so that at most two layers' queries are held.
	building := make(chan error, 1)
	building <- nil
	for l := range spec.Layers {
		var queries []float32
		if view != nil && keep {
			queries = make([]float32, n*spec.Heads*spec.HeadDim)
		}
		err := e.o.Model.Prefill(ctx, stream, l, 0, d.kvc, queries, o.Progress)
		indexed := false
		if err == nil {
			indexed, err = d.place(ctx, l)
		}
		if err := <-building; err != nil {
			return fmt.Errorf("build the search index: %w", err)
		}
		if err != nil {
			return fmt.Errorf("prefill layer %d: %w", l, err)
		}
		go func() {
			if !indexed {
				building <- nil
				return
			}
			building <- strategy.Build(ctx, &retrieval.Build{View: view, Layer: l, Heads: spec.Heads, Queries: queries})
		}()
	}
	if err := <-building; err != nil {
		return fmt.Errorf("build the search index: %w", err)
	}
	d.kvc.Commit(n)
	return nil
}

// place places one layer of every view after its prefill and reports whether
// there is anything to search.
func (d *Document) place(ctx context.Context, layer int) (indexed bool, err error) {
	for m, v := range d.views {
		if m == Full {
			continue
		}
		moved, err := d.engine.place(ctx, &placement.Call{View: v, Layer: layer, Prefill: v.Len()}, m)
		if err != nil {
			return false, err
		}
		indexed = indexed || len(moved) > 0
	}
	return indexed, nil
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
