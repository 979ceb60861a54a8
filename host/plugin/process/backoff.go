package process

import (
	"math/rand/v2"
	"time"
)

// clock is the time that restarts go by.
type clock interface {
	Now() time.Time
	After(d time.Duration) <-chan time.Time
}

type wallClock struct{}

func (wallClock) Now() time.Time                         { return time.Now() }
func (wallClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

const (
	firstWait = 100 * time.Millisecond
	longWait  = 30 * time.Second
	// stable is how long a process must live for the next wait to be the
	// first one again.
	stable = time.Minute
)

// backoff says how long to wait before a process is started again: twice as
// long each time up to longWait, with a jitter of a fifth, so that hosts that
// lost their plugins together do not start them together.
type backoff struct {
	rand *rand.Rand
	next time.Duration
}

func newBackoff(seed uint64) *backoff {
	return &backoff{rand: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), next: firstWait}
}

func (b *backoff) wait() time.Duration {
	d := b.next
	b.next = min(2*b.next, longWait)
	return d + time.Duration((b.rand.Float64()-0.5)*0.4*float64(d))
}

func (b *backoff) reset() { b.next = firstWait }
