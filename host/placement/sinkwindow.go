package placement

import (
	"context"
	"fmt"

	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
)

// SinkWindow is the policy of RetrievalAttention: the first Sink and the last
// Window tokens are static, those between them indexed.
type SinkWindow struct {
	Sink, Window int
}

// Validate reports negative sizes and a window that would not hold the token
// of the step itself.
func (w SinkWindow) Validate() error {
	if w.Sink < 0 {
		return fmt.Errorf("sink is %d tokens, must not be negative", w.Sink)
	}
	if w.Window < 1 {
		return fmt.Errorf("window is %d tokens, must be at least 1: a step attends to its own token", w.Window)
	}
	return nil
}

// Info names the policy.
func (w SinkWindow) Info() retrieval.Info {
	return retrieval.Info{Name: "sinkwindow", Version: "1", Runtime: "native"}
}

// Place indexes the static tokens between sink and window.
func (w SinkWindow) Place(_ context.Context, call *Call) ([]Move, error) {
	lo, hi := w.Sink, call.View.Len()-w.Window
	var moves []Move
	for r := range call.View.Ranges(call.Layer, kv.Static) {
		if a, b := max(lo, r.Lo), min(hi, r.Hi); a < b {
			moves = append(moves, Move{kv.Range{Lo: a, Hi: b}, kv.Indexed})
		}
	}
	return moves, nil
}

// Close does nothing.
func (w SinkWindow) Close() error { return nil }
