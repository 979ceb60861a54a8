package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/retrievalattention/ra/host/kv"
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
// under way keep theirs.
func (d *Document) Close() error {
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
	spec := e.o.Model.Spec()
	kvc, err := kv.NewContext(spec.Geometry(e.o.DType), len(tokens), e.o.Memory)
	if err != nil {
		return nil, err
	}
	if err := kvc.CheckFork(o.Room); err != nil {
		return nil, errors.Join(err, kvc.Close())
	}
	d := &Document{engine: e, kvc: kvc, views: map[Mode]*kv.View{}, tokens: slices.Clone(tokens)}
	start := time.Now()
	if err := d.prefill(ctx, o); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.PrefillSeconds = time.Since(start).Seconds()
	return d, nil
}

func (d *Document) prefill(ctx context.Context, o PrefillOptions) error {
	e, n := d.engine, len(d.tokens)
	spec := e.o.Model.Spec()
	for _, m := range o.Modes {
		v := kv.NewView(d.kvc)
		v.Extend(n)
		for l := range spec.Layers {
			switch m {
			case Retrieval:
				e.o.Window.place(v, l, kv.Indexed)
			case StaticSet:
				e.o.Window.place(v, l, kv.Dropped)
			}
		}
		d.views[m] = v
	}
	stream, err := e.o.Model.Embed(d.tokens)
	if err != nil {
		return err
	}
	defer stream.Close()
	view := d.views[Retrieval]
	if view != nil && e.o.Strategy == nil {
		return errors.New("retrieval attention needs a search strategy")
	}
	user, ok := e.o.Strategy.(retrieval.QueryUser)
	keep := ok && user.UsesPrefillQueries()
	// The build of one layer runs beside the next layer's prefill; no more
	// than one at a time, so that at most two layers' queries are held.
	building := make(chan error, 1)
	building <- nil
	for l := range spec.Layers {
		indexed := view != nil && view.Count(l, kv.Indexed) > 0
		var queries []float32
		if indexed && keep {
			queries = make([]float32, n*spec.Heads*spec.HeadDim)
		}
		err := e.o.Model.Prefill(ctx, stream, l, 0, d.kvc, queries, o.Progress)
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
			building <- e.o.Strategy.Build(ctx, &retrieval.Build{View: view, Layer: l, Heads: spec.Heads, Queries: queries})
		}()
	}
	if err := <-building; err != nil {
		return fmt.Errorf("build the search index: %w", err)
	}
	d.kvc.Commit(n)
	return nil
}

// tooLong is the error for a document that leaves less than room tokens for
// question and answer.
func (e *Engine) tooLong(document, room int) error {
	return fmt.Errorf("%w: %d tokens of document and %d for question and answer are %d, the limit is %d; shorten the prompt, lower generate.max_tokens, or raise model.max_context if the model allows it",
		ErrPromptTooLong, document, room, document+room, e.o.MaxContext)
}
