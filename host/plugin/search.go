package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
	"github.com/retrievalattention/ra/host/sched"
	abi "github.com/retrievalattention/ra/sdk/abi/v1"
)

// Info identifies the plugin.
func (p *Plugin) Info() retrieval.Info {
	return retrieval.Info{Name: p.desc.Name, Version: p.desc.Version, Runtime: "wasm", Digest: p.digest}
}

// Description returns what the plugin says about itself. It is shared; do
// not change it.
func (p *Plugin) Description() *Description { return p.desc }

// UsesPrefillQueries reports whether the plugin's description asks for them.
func (p *Plugin) UsesPrefillQueries() bool {
	return slices.Contains(p.desc.Needs, abi.NeedPrefillQueries)
}

// Build lets the plugin build the index of one layer, one call a KV head,
// spread over the instances. When it fails and the plugin falls back, Build
// returns nil and the searches of that layer are answered exactly from then
// on, until a Build of the same view and layer succeeds.
func (p *Plugin) Build(ctx context.Context, b *retrieval.Build) error {
	err := p.perHead(ctx, b.View, b.Layer, abi.ScopeBuild, func(in *instance, head int) error {
		in.call.build = b
		return in.status("ra_build", uint64(b.Layer), uint64(head))
	})
	return p.indexed(ctx, b.View, b.Layer, "build", err)
}

// Append tells the plugin of tokens that were indexed since. A failure counts
// as one of Build does.
func (p *Plugin) Append(ctx context.Context, view *kv.View, layer int, r kv.Range) error {
	if p.built.failed(view, layer) {
		return nil // the layer has no index to append to
	}
	err := p.perHead(ctx, view, layer, abi.ScopeAppend, func(in *instance, head int) error {
		return in.status("ra_append", uint64(layer), uint64(head), uint64(r.Lo), uint64(r.Hi))
	})
	return p.indexed(ctx, view, layer, "append", err)
}

// indexed records the outcome of a build or append.
func (p *Plugin) indexed(ctx context.Context, view *kv.View, layer int, operation string, err error) error {
	if err == nil {
		if operation == "build" {
			p.built.record(view, layer, true)
		}
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err = p.failed(operation, layer, -1, err)
	if p.opts.OnFailure == Fail {
		return err
	}
	p.built.record(view, layer, false)
	p.log.Warn("the layer has no index: its searches are answered exactly", "layer", layer, "operation", operation)
	return nil
}

// perHead runs f for every KV head of a layer over the instances at hand.
func (p *Plugin) perHead(ctx context.Context, view *kv.View, layer int, scope abi.Scope, f func(in *instance, head int) error) error {
	if p.closed.Load() {
		return ErrClosed
	}
	timeout := p.opts.Limits.SearchTimeout
	if scope == abi.ScopeBuild {
		timeout = p.opts.Limits.BuildTimeout
	}
	heads := view.Context().Geometry().KVHeads
	return p.share(ctx, heads, func(in *instance, first, n int) error {
		in.begin(ctx, scope, timeout)
		for h := first; h < first+n; h++ {
			c := &in.call
			c.layer, c.views, c.firstKVHead, c.kvHeads = layer, append(c.views[:0], view), 0, heads
			c.head, c.failText, c.logLines, c.randomOK = h, "", 0, false
			if err := f(in, h); err != nil {
				return err
			}
		}
		return nil
	})
}

// share splits n KV heads over as many instances as are idle, one at least,
// and runs f on each with its share. It returns the first error.
func (p *Plugin) share(ctx context.Context, n int, f func(in *instance, first, n int) error) error {
	main, err := p.acquire(ctx)
	if err != nil {
		return err
	}
	instances := []*instance{main}
	for len(instances) < n {
		in := p.tryAcquire(ctx)
		if in == nil {
			break
		}
		instances = append(instances, in)
	}
	shares := len(instances)
	bound := func(i int) int { return i * n / shares }
	errs := make([]error, shares)
	err = sched.Run(ctx, shares, 0, func(i int, _ []float32) {
		errs[i] = f(instances[i], bound(i), bound(i+1)-bound(i))
	})
	for _, in := range instances {
		p.release(in)
	}
	for _, e := range errs {
		if e != nil {
			return e
		}
	}
	return err
}

// Search answers a call by the plugin, its KV heads split over the idle
// instances. When the plugin fails and falls back, exact search answers.
func (p *Plugin) Search(ctx context.Context, call *retrieval.Call, res *retrieval.Result) error {
	if err := checkCall(call); err != nil {
		return p.errorOf("search", call.Layer, call.Step, err)
	}
	p.stats.calls.Add(1)
	if p.opts.OnFailure == Fallback && (p.built.anyFailed(call) || p.backoff.resting()) {
		p.fellBack()
		return p.exact.Search(ctx, call, res)
	}
	err := p.searchGuest(ctx, call, res)
	switch {
	case err == nil:
		p.backoff.record(true)
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	err = p.failed("search", call.Layer, call.Step, err)
	if rest := p.backoff.record(false); rest > 0 && p.opts.OnFailure == Fallback {
		p.log.Debug("the plugin rests", "for", rest)
	}
	if p.opts.OnFailure == Fail || errors.Is(err, ErrClosed) {
		return err
	}
	p.fellBack()
	return p.exact.Search(ctx, call, res)
}

func (p *Plugin) searchGuest(ctx context.Context, call *retrieval.Call, res *retrieval.Result) error {
	if p.closed.Load() {
		return ErrClosed
	}
	res.Reset(call.Count())
	kvHeads := call.Views[0].Context().Geometry().KVHeads
	var mu sync.Mutex
	return p.share(ctx, kvHeads, func(in *instance, first, n int) error {
		in.begin(ctx, abi.ScopeSearch, p.opts.Limits.SearchTimeout)
		c := &in.call
		c.layer, c.views, c.search, c.result = call.Layer, call.Views, call, res
		c.firstKVHead, c.kvHeads = first, n
		if err := in.status("ra_search", uint64(call.Layer)); err != nil {
			return err
		}
		if err := in.checkHits(); err != nil {
			in.broken = true // what else it gets wrong nobody knows
			return err
		}
		if err := in.weigh(); err != nil {
			return err
		}
		mu.Lock()
		res.KeysScored += c.scored
		mu.Unlock()
		return nil
	})
}

// checkHits checks what the guest emitted for its share.
func (in *instance) checkHits() error {
	for i := range in.share() {
		if err := in.checker.Check(in.call.search, i, in.call.result.Hits[i]); err != nil {
			return err
		}
	}
	return nil
}

// share yields the queries of the KV heads that the instance is to answer.
func (in *instance) share() func(yield func(int) bool) {
	call := in.call.search
	group := call.Heads / call.Views[0].Context().Geometry().KVHeads
	lo, hi := in.call.firstKVHead*group, (in.call.firstKVHead+in.call.kvHeads)*group
	return func(yield func(int) bool) {
		for i := 0; i < call.Count(); i += call.Heads {
			for h := i + lo; h < i+hi; h++ {
				if !yield(h) {
					return
				}
			}
		}
	}
}

// checkCall checks what only a host bug gets wrong, for a guest must not be
// handed slices that do not fit.
func checkCall(c *retrieval.Call) error {
	if len(c.Views) == 0 || c.Tokens < 1 || c.Heads < 1 || c.TopK < 0 {
		return fmt.Errorf("search call with %d sequences, %d tokens, %d heads, top %d", len(c.Views), c.Tokens, c.Heads, c.TopK)
	}
	geo := c.Views[0].Context().Geometry()
	for _, v := range c.Views {
		if v.Context().Geometry() != geo {
			return fmt.Errorf("search call over contexts of different shapes")
		}
	}
	switch {
	case c.Heads%geo.KVHeads != 0:
		return fmt.Errorf("%d query heads over %d KV heads", c.Heads, geo.KVHeads)
	case len(c.Queries) != c.Count()*geo.HeadDim:
		return fmt.Errorf("%d query elements for %d queries of dimension %d", len(c.Queries), c.Count(), geo.HeadDim)
	case c.Layer < 0 || c.Layer >= geo.Layers:
		return fmt.Errorf("layer %d of %d", c.Layer, geo.Layers)
	case c.Count() > abi.QueryIndexMask:
		return fmt.Errorf("%d queries in one call, at most %d are possible", c.Count(), abi.QueryIndexMask)
	}
	return nil
}

// Close frees the instances and the compiled module. No call may be under
// way.
func (p *Plugin) Close() error {
	p.once.Do(func() {
		p.closed.Store(true)
		p.shutDown()
	})
	return nil
}
