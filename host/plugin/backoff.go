package plugin

import (
	"sync"
	"time"
)

// A plugin that fails again and again is left alone for a while, longer each
// time: a trap or a timeout in every step would cost more than the exact
// search that answers instead.
const (
	failuresBeforeRest = 3
	firstRest          = 100 * time.Millisecond
	longestRest        = 30 * time.Second
)

// backoff decides when a plugin that failed is asked again.
type backoff struct {
	now func() time.Time

	mu       sync.Mutex
	failures int // in a row
	until    time.Time
}

// resting reports whether the plugin is to be left alone.
func (b *backoff) resting() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failures >= failuresBeforeRest && b.now().Before(b.until)
}

// record counts a call's outcome and returns how long the plugin rests, 0
// when it does not.
func (b *backoff) record(ok bool) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ok {
		b.failures = 0
		return 0
	}
	b.failures++
	over := b.failures - failuresBeforeRest
	if over < 0 {
		return 0
	}
	rest := longestRest
	if over < 16 {
		rest = min(firstRest<<over, longestRest)
	}
	b.until = b.now().Add(rest)
	return rest
}
