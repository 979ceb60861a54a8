package engine

import (
	"sync"

	"github.com/retrievalattention/ra/host/retrieval"
)

// tenure is the time of one search strategy in an engine: from the moment it
// is chosen until the last document that it indexed is gone.
type tenure struct {
	strategy retrieval.Strategy // nil for none

	mu      sync.Mutex
	users   int // documents and answers, and the engine while it is the current one
	drained chan struct{}
}

func newTenure(s retrieval.Strategy) *tenure {
	return &tenure{strategy: s, users: 1, drained: make(chan struct{})}
}

// enter counts a user. It reports false when the tenure is over.
func (t *tenure) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users == 0 {
		return false
	}
	t.users++
	return true
}

// leave ends what enter began.
func (t *tenure) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users--; t.users == 0 {
		close(t.drained)
	}
}

// tenant returns the current tenure, entered.
func (e *Engine) tenant() *tenure {
	for {
		if t := e.tenure.Load(); t.enter() {
			return t
		}
	}
}

// SwapStrategy makes next the strategy of all documents that are prefilled
// from now on. Documents that exist, their answers too, stay with the one
// that indexed them: nothing under way is disturbed. The channel is closed
// when the last of them is closed; then the former strategy may be.
func (e *Engine) SwapStrategy(next retrieval.Strategy) (drained <-chan struct{}) {
	former := e.tenure.Swap(newTenure(next))
	former.leave()
	return former.drained
}
