package plugin

import (
	"context"
	"errors"
	"log/slog"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
)

// Guard is what the runtimes of plugins share: it counts a plugin's calls and
// failures, logs them, remembers which indexes are missing, and answers by
// exact search what the plugin does not, when it may. It is safe for
// concurrent use.
type Guard struct {
	// Name and Digest identify the plugin in errors, Log takes the messages.
	// They are set before the first call.
	Name, Digest string
	Log          *slog.Logger

	onFailure OnFailure
	exact     *retrieval.Flat
	built     builds
	stats     statistics
}

// NewGuard returns a guard that falls back to exact search by scanner.
func NewGuard(onFailure OnFailure, scanner compute.Scanner, log *slog.Logger) *Guard {
	return &Guard{onFailure: onFailure, exact: retrieval.NewFlat(scanner), Log: log}
}

// Search answers a call by answer, or by exact search when that fails or the
// layer's index is missing. ErrUnavailable from answer is no failure: it was
// counted when the plugin went away.
func (g *Guard) Search(ctx context.Context, call *retrieval.Call, res *retrieval.Result, answer func() error) error {
	if err := checkCall(call); err != nil {
		return g.Error("search", call.Layer, call.Step, err)
	}
	g.stats.calls.Add(1)
	if g.onFailure == Fallback && g.built.anyFailed(call) {
		g.fellBack()
		return g.exact.Search(ctx, call, res)
	}
	err := answer()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, ErrUnavailable):
		err = g.Error("search", call.Layer, call.Step, err)
	default:
		err = g.Failed("search", call.Layer, call.Step, err)
	}
	if g.onFailure == Fail || errors.Is(err, ErrClosed) {
		return err
	}
	g.fellBack()
	return g.exact.Search(ctx, call, res)
}

// Indexed records the outcome of a "build" or "append". When it failed and
// the plugin falls back, it returns nil and the searches of the layer are
// answered exactly until a build of the same view and layer succeeds.
func (g *Guard) Indexed(ctx context.Context, view *kv.View, layer int, operation string, err error) error {
	if err == nil {
		if operation == "build" {
			g.built.record(view, layer, true)
		}
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err = g.Failed(operation, layer, -1, err)
	if g.onFailure == Fail {
		return err
	}
	g.built.record(view, layer, false)
	g.Log.Warn("the layer has no index: its searches are answered exactly", "layer", layer, "operation", operation)
	return nil
}

// HasIndex is false when a build or an append of the layer failed, or one of
// a view that the view may have been forked from.
func (g *Guard) HasIndex(view *kv.View, layer int) bool { return !g.built.failed(view, layer) }

// Error wraps the cause of a failed operation. Layer and step are -1 where
// there is none.
func (g *Guard) Error(operation string, layer, step int, err error) error {
	return &Error{Plugin: g.Name, Digest: g.Digest, Operation: operation, Layer: layer, Step: step, Err: err}
}

// Failed counts and logs a failure and returns it as an [*Error].
func (g *Guard) Failed(operation string, layer, step int, cause error) error {
	err := g.Error(operation, layer, step, cause)
	g.stats.mu.Lock()
	g.stats.last = err
	g.stats.mu.Unlock()
	if n := g.stats.failures.Add(1); worthSaying(n) {
		g.Log.Warn("plugin failed", "error", err, "failures", n, "on_failure", string(g.onFailure))
	}
	return err
}

// fellBack counts a search answered exactly.
func (g *Guard) fellBack() {
	if n := g.stats.fallbacks.Add(1); worthSaying(n) {
		g.Log.Warn("search answered by exact search instead of the plugin", "fallbacks", n, "searches", g.stats.calls.Load())
	}
}

// worthSaying is true for 1 and the powers of ten.
func worthSaying(n int64) bool {
	for n >= 10 && n%10 == 0 {
		n /= 10
	}
	return n == 1
}
