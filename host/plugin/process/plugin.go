package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/plugin"
	"github.com/retrievalattention/ra/host/retrieval"
	contract "github.com/retrievalattention/ra/sdk/process/v1"
)

// Plugin is a search plugin that runs as a process. It is safe for concurrent
// use.
type Plugin struct {
	opts   Options
	guard  *plugin.Guard
	desc   *plugin.Description
	shares []*contract.Share
	files  []*os.File // inherited by the process, in the order of shares

	current  atomic.Pointer[process] // nil while none runs
	restarts atomic.Int64
	indexes  indexes
	checkers sync.Pool // *retrieval.Checker
	backoff  *backoff

	closing context.Context // ended by Close
	close   context.CancelFunc
	wg      sync.WaitGroup
}

var (
	_ retrieval.Strategy  = (*Plugin)(nil)
	_ retrieval.QueryUser = (*Plugin)(nil)
)

// Load starts and configures a plugin, so that a bad one fails here and not
// in a search. All errors are a *plugin.Error. The caller must close the
// plugin.
func Load(ctx context.Context, o Options) (*Plugin, error) {
	p := &Plugin{}
	fail := func(err error) (*Plugin, error) {
		digest := ""
		if p.guard != nil {
			digest = p.guard.Digest
		}
		return nil, &plugin.Error{Plugin: o.Name, Digest: digest, Operation: "load", Layer: -1, Step: -1, Err: err}
	}
	if err := o.complete(); err != nil {
		return fail(err)
	}
	p.opts, p.backoff = o, newBackoff(o.Seed)
	p.guard = plugin.NewGuard(o.OnFailure, o.Scanner, o.Logger.With("plugin", o.Name))
	p.guard.Name = o.Name
	p.share()
	p.closing, p.close = context.WithCancel(context.Background())
	first, desc, err := p.launch(ctx, 1)
	if err != nil {
		p.close()
		return fail(err)
	}
	p.desc = desc
	p.indexes.init()
	p.current.Store(first)
	p.wg.Go(func() { p.supervise(first) })
	p.wg.Go(p.forget)
	return p, nil
}

// share lists the files that were granted.
func (p *Plugin) share() {
	keys, values, queries := p.opts.Memory.Shared()
	for _, g := range []struct {
		name  string
		kind  contract.ShareKind
		arena *kv.Arena
	}{
		{contract.FeatureKeys, contract.ShareKind_SHARE_KIND_KEYS, keys},
		{contract.FeatureValues, contract.ShareKind_SHARE_KIND_VALUES, values},
		{contract.FeatureQueries, contract.ShareKind_SHARE_KIND_QUERIES, queries},
	} {
		if slices.Contains(p.opts.Grants, g.name) {
			p.files = append(p.files, g.arena.File())
			// The lifeline comes first.
			p.shares = append(p.shares, &contract.Share{Kind: g.kind, Fd: int32(firstFD + len(p.files))})
		}
	}
}

// Info identifies the plugin.
func (p *Plugin) Info() retrieval.Info {
	return retrieval.Info{Name: p.desc.Name, Version: p.desc.Version, Runtime: "process", Digest: p.guard.Digest}
}

// Description returns what the plugin says about itself. It is shared; do
// not change it.
func (p *Plugin) Description() *plugin.Description { return p.desc }

// UsesPrefillQueries reports whether the plugin builds from the prefill's
// queries.
func (p *Plugin) UsesPrefillQueries() bool { return p.does(contract.FeatureQueries) }

// does reports whether the plugin declared a feature.
func (p *Plugin) does(feature string) bool { return slices.Contains(p.desc.Features, feature) }

// Stats returns the counts so far.
func (p *Plugin) Stats() plugin.Stats {
	s := p.guard.Stats()
	s.Restarts = p.restarts.Load()
	if p.current.Load() != nil {
		s.Instances = 1
	}
	return s
}

// Close ends the process and everything in its group. No call may be under
// way.
func (p *Plugin) Close() error {
	p.close()
	p.wg.Wait()
	if r := p.current.Swap(nil); r != nil {
		r.stop()
	}
	return p.indexes.close()
}

// running returns the process, or why there is none.
func (p *Plugin) running() (*process, error) {
	if p.closing.Err() != nil {
		return nil, plugin.ErrClosed
	}
	if r := p.current.Load(); r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("%w: its process is being started again", plugin.ErrUnavailable)
}

// Search answers a call by the plugin, in one remote call. When the plugin
// fails, or is being started again, and falls back, exact search answers.
func (p *Plugin) Search(ctx context.Context, call *retrieval.Call, res *retrieval.Result) error {
	return p.guard.Search(ctx, call, res, func() error {
		r, err := p.running()
		if err != nil {
			return err
		}
		for _, v := range call.Views {
			if !p.indexes.ready(v, call.Layer, r.number) {
				return fmt.Errorf("%w: the index of layer %d is being restored", plugin.ErrUnavailable, call.Layer)
			}
		}
		res.Reset(call.Count())
		request, err := searchRequest(call)
		if err != nil {
			return err
		}
		limited, cancel := context.WithTimeout(ctx, p.opts.Limits.SearchTimeout)
		defer cancel()
		answer, err := r.rpc.Search(limited, request, grpc.MaxCallRecvMsgSize(answerLimit(call)))
		if err != nil {
			return p.callError(ctx, r, "search", err)
		}
		return p.take(call, answer, res)
	})
}

// take checks an answer and moves it to res.
func (p *Plugin) take(call *retrieval.Call, answer *contract.SearchResponse, res *retrieval.Result) error {
	if err := hits(call, answer, res); err != nil {
		return err
	}
	checker, _ := p.checkers.Get().(*retrieval.Checker)
	if checker == nil {
		checker = &retrieval.Checker{}
	}
	defer p.checkers.Put(checker)
	for i, h := range res.Hits {
		if err := checker.Check(call, i, h); err != nil {
			return err
		}
	}
	res.Checked = true
	return nil
}

// callError says why a remote call failed. A process that does not answer in
// time, or not at all, is ended: it might go on computing for good.
func (p *Plugin) callError(ctx context.Context, r *process, call string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s, _ := status.FromError(err)
	text := clip(printable(s.Message()), 512)
	switch s.Code() {
	case codes.DeadlineExceeded:
		r.kill()
		return fmt.Errorf("%w: %s took too long, the process was ended", plugin.ErrDeadline, call)
	case codes.Unavailable, codes.Canceled:
		how := r.status()
		r.kill()
		return fmt.Errorf("%w: %s", plugin.ErrExit, how)
	case codes.ResourceExhausted:
		return fmt.Errorf("%w: %s: the message is too large: %s", plugin.ErrCall, call, text)
	case codes.Unimplemented:
		return fmt.Errorf("%w: the plugin does not serve %s", plugin.ErrABI, call)
	}
	return fmt.Errorf("%w: %s: %s", plugin.ErrGuest, call, text)
}

// ended reports whether a call failed because its process ended.
func ended(err error) bool {
	return errors.Is(err, plugin.ErrExit) || errors.Is(err, plugin.ErrDeadline)
}
