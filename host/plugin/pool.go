package plugin

import (
	"context"
	"sync"
)

// pool holds a plugin's instances. A slot is the right to use one; idle
// instances wait for whoever takes a slot next.
type pool struct {
	slots chan struct{}
	mu    sync.Mutex
	idle  []*instance
	alive int
}

func newPool(n int) *pool { return &pool{slots: make(chan struct{}, n)} }

// acquire waits for a slot and returns an instance, made when none is idle.
func (p *Plugin) acquire(ctx context.Context) (*instance, error) {
	select {
	case p.pool.slots <- struct{}{}:
		return p.take(ctx)
	default:
	}
	select {
	case p.pool.slots <- struct{}{}:
		return p.take(ctx)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// tryAcquire returns nil when no slot is free or no instance can be made.
func (p *Plugin) tryAcquire(ctx context.Context) *instance {
	select {
	case p.pool.slots <- struct{}{}:
		in, err := p.take(ctx)
		if err != nil {
			return nil
		}
		return in
	default:
		return nil
	}
}

// take returns an instance for a slot that is held, and gives the slot back
// on an error.
func (p *Plugin) take(ctx context.Context) (*instance, error) {
	l := p.pool
	l.mu.Lock()
	if n := len(l.idle); n > 0 {
		in := l.idle[n-1]
		l.idle = l.idle[:n-1]
		l.mu.Unlock()
		return in, nil
	}
	l.mu.Unlock()
	in, err := p.instantiate(ctx)
	if err != nil {
		<-l.slots
		return nil, err
	}
	l.mu.Lock()
	l.alive++
	l.mu.Unlock()
	return in, nil
}

// release gives an instance and its slot back; a broken one is closed.
func (p *Plugin) release(in *instance) {
	in.end()
	l := p.pool
	l.mu.Lock()
	if in.broken {
		l.alive--
	} else {
		l.idle = append(l.idle, in)
	}
	l.mu.Unlock()
	if in.broken {
		in.close()
	}
	<-l.slots
}

// close closes the idle instances.
func (l *pool) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, in := range l.idle {
		in.close()
	}
	l.alive -= len(l.idle)
	l.idle = nil
}

func (l *pool) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alive
}
