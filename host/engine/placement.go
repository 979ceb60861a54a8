package engine

import (
	"fmt"

	"github.com/retrievalattention/ra/host/kv"
)

// appendBlock is how many tokens leave the window at a time: the window has
// that much slack, so that a search index grows in few, larger steps.
const appendBlock = 64

// SinkWindow is the placement policy of RetrievalAttention: the first Sink
// and the last Size tokens are static, those between them are indexed (or
// dropped, in static mode).
type SinkWindow struct {
	Sink, Size int
}

// Validate reports negative sizes and a window that would not hold the token
// of the step itself.
func (w SinkWindow) Validate() error {
	if w.Sink < 0 {
		return fmt.Errorf("sink is %d tokens, must not be negative", w.Sink)
	}
	if w.Size < 1 {
		return fmt.Errorf("window is %d tokens, must be at least 1: a step attends to its own token", w.Size)
	}
	return nil
}

// place gives the tokens of one layer between sink and window the state
// outside. It is for a view whose tokens are all static: after prefill.
func (w SinkWindow) place(v *kv.View, layer int, outside kv.State) {
	if r, ok := w.between(v); ok {
		v.Place(layer, r, outside)
	}
}

// between returns the positions that are neither sink nor window.
func (w SinkWindow) between(v *kv.View) (kv.Range, bool) {
	r := kv.Range{Lo: w.Sink, Hi: v.Len() - w.Size}
	return r, r.Hi > r.Lo
}

// leaving returns the block of static tokens of a layer that have left the
// window, once there are appendBlock of them.
func (w SinkWindow) leaving(v *kv.View, layer int) (kv.Range, bool) {
	r, ok := w.between(v)
	if !ok {
		return r, false
	}
	for s := range v.Ranges(layer, kv.Static) {
		if s.Hi > r.Lo {
			r.Lo = max(r.Lo, s.Lo)
			break
		}
	}
	return r, r.Len() >= appendBlock
}
