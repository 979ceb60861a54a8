package process

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/plugin"
	contract "github.com/retrievalattention/ra/sdk/process/v1"
)

// supervise starts the process again whenever it has ended, until Close.
func (p *Plugin) supervise(r *process) {
	for {
		select {
		case <-p.closing.Done():
			return
		case <-p.indexes.stale:
			p.restore(r)
			continue
		case <-r.done:
		}
		p.current.Store(nil)
		if p.closing.Err() != nil {
			r.stop()
			return
		}
		p.guard.Failed("run", -1, -1, fmt.Errorf("%w: %s", plugin.ErrExit, r.status()))
		lived := p.opts.clock.Now().Sub(r.started)
		r.stop()
		if lived >= stable {
			p.backoff.reset()
		}
		if r = p.relaunch(r.number + 1); r == nil {
			return
		}
		p.current.Store(r)
		p.restarts.Add(1)
		p.guard.Log.Info("the plugin's process was started again", "restarts", p.restarts.Load())
		p.restore(r)
	}
}

// relaunch waits and tries until a process runs. It returns nil when the
// plugin is closed.
func (p *Plugin) relaunch(number int64) *process {
	for {
		wait := p.backoff.wait()
		p.guard.Log.Info("the plugin's process will be started again", "after", wait.Round(time.Millisecond).String())
		select {
		case <-p.opts.clock.After(wait):
		case <-p.closing.Done():
			return nil
		}
		r, _, err := p.launch(p.closing, number)
		switch {
		case err == nil:
			return r
		case p.closing.Err() != nil:
			return nil
		}
		p.guard.Failed("restart", -1, -1, err)
	}
}

// restore gives the process the indexes that it lacks, one after the other,
// as long as it lives.
func (p *Plugin) restore(r *process) {
	for {
		i := p.indexes.next(r.number)
		if i == nil {
			return
		}
		view := i.view.Value()
		if view == nil || closed(view) {
			p.indexes.fail(i, r.number) // nothing will search it
			continue
		}
		sent, err := p.restoreIndex(p.closing, r, i)
		if err == nil {
			p.indexes.done(i, r.number, sent)
			// What searches of the view fell back for is over.
			_ = p.guard.Indexed(p.closing, view, i.layer, "build", nil)
			continue
		}
		if p.closing.Err() != nil {
			return
		}
		if ended(err) {
			<-r.done // it was killed if it had not ended
			p.indexes.wait(i)
			return
		}
		p.guard.Failed("restore", i.layer, -1, err)
		p.indexes.fail(i, r.number)
	}
}

// closed reports whether the memory of a view was given back.
func closed(view *kv.View) bool {
	for range view.Context().Extents(0, math.MaxInt) {
		return false
	}
	return true
}

// restoreIndex gives the process one index and returns how much of its tail
// is in it.
func (p *Plugin) restoreIndex(ctx context.Context, r *process, i *index) (sent int, err error) {
	last, tail, sent, held := p.indexes.snapshot(i)
	if held != r.number {
		sent = 0
		switch {
		case i.built && i.saved != nil && p.load(ctx, r, i, last) == nil:
		case i.built:
			// Without the prefill's queries: they are gone.
			err = p.callBuild(ctx, r, &contract.BuildRequest{Layer: uint32(i.layer), Heads: uint32(i.heads), Sequence: last})
			if err != nil {
				return 0, err
			}
			sent = len(tail)
		}
	}
	if sent < len(tail) {
		if err := p.callAppend(ctx, r, i.layer, last, tail[sent:]); err != nil {
			return 0, err
		}
	}
	return len(tail), nil
}

// forget tells the process of views that are gone.
func (p *Plugin) forget() {
	for {
		select {
		case <-p.closing.Done():
			return
		case <-p.indexes.forgetting:
		}
		gone := p.indexes.take()
		if r := p.current.Load(); r != nil && len(gone) > 0 {
			ctx, cancel := context.WithTimeout(p.closing, p.opts.Limits.SearchTimeout)
			_, err := r.rpc.Forget(ctx, &contract.ForgetRequest{Views: gone})
			cancel()
			if err != nil && p.closing.Err() == nil {
				p.guard.Log.Warn("the plugin did not forget views", "error", err)
			}
		}
	}
}
