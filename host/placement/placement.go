// Package placement decides which tokens of a view are attended at every step
// (static), when a search returns them (indexed) or never (dropped).
package placement

import (
	"context"
	"errors"
	"fmt"

	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
)

// ErrMoves marks moves that break the rules of [Check].
var ErrMoves = errors.New("invalid placement")

// Policy places the tokens of one layer: after the prefill, when all of them
// are static, and again whenever [Every] more tokens were decoded. Calls for
// different layers or views may run at the same time.
type Policy interface {
	// Info identifies the policy in results and errors.
	Info() retrieval.Info
	// Place returns what is to change. The view is not to be changed.
	Place(ctx context.Context, call *Call) ([]Move, error)
	// Close releases what the policy holds. No call may be under way.
	Close() error
}

// Every is how many tokens are decoded between two calls of a policy: tokens
// are indexed in few, larger steps.
const Every = 64

// Call describes the layer to place.
type Call struct {
	View     *kv.View
	Layer    int
	Prefill  int // tokens of the prefill; those from there on were decoded
	Decoding bool
}

// Move gives the positions of Range the state To.
type Move struct {
	Range kv.Range
	To    kv.State
}

// Check returns an error wrapping [ErrMoves] unless every move, carried out
// in order, lies within the view, leaves its last token static, and turns
// static tokens into indexed or dropped ones or indexed into dropped ones:
// an index forgets no token, so there is no way back.
func Check(call *Call, moves []Move) error {
	v := call.View
	for i, m := range moves {
		switch r := m.Range; {
		case r.Lo < 0 || r.Hi < r.Lo || r.Hi > v.Len():
			return fmt.Errorf("%w: positions [%d, %d) of a sequence of %d", ErrMoves, r.Lo, r.Hi, v.Len())
		case r.Len() > 0 && r.Hi == v.Len():
			return fmt.Errorf("%w: the last token, %d, is placed; a step attends to its own token", ErrMoves, r.Hi-1)
		case m.To != kv.Indexed && m.To != kv.Dropped:
			return fmt.Errorf("%w: positions [%d, %d) are to become %s; a token can become indexed or dropped", ErrMoves, r.Lo, r.Hi, m.To)
		}
		for s := range v.Ranges(call.Layer, kv.Dropped) {
			if m.To == kv.Indexed && overlap(s, m.Range) {
				return fmt.Errorf("%w: dropped tokens of [%d, %d) are to become indexed", ErrMoves, m.Range.Lo, m.Range.Hi)
			}
		}
		for _, before := range moves[:i] {
			if overlap(before.Range, m.Range) {
				return fmt.Errorf("%w: positions [%d, %d) are placed twice", ErrMoves, max(before.Range.Lo, m.Range.Lo), min(before.Range.Hi, m.Range.Hi))
			}
		}
	}
	return nil
}

func overlap(a, b kv.Range) bool { return max(a.Lo, b.Lo) < min(a.Hi, b.Hi) }

// Apply carries out moves that passed [Check] and returns the ranges that
// were not indexed before and are now, in the moves' order. With search false
// nothing can be found, and what would be indexed is dropped.
func Apply(call *Call, moves []Move, search bool) []kv.Range {
	v := call.View
	var indexed []kv.Range
	for _, m := range moves {
		to := m.To
		if to == kv.Indexed {
			if !search {
				to = kv.Dropped
			} else {
				for r := range v.Ranges(call.Layer, kv.Static) {
					if overlap(r, m.Range) {
						indexed = append(indexed, kv.Range{Lo: max(r.Lo, m.Range.Lo), Hi: min(r.Hi, m.Range.Hi)})
					}
				}
			}
		}
		v.Place(call.Layer, m.Range, to)
	}
	return indexed
}
