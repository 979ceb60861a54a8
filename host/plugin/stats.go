package plugin

import (
	"sync"
	"sync/atomic"
)

// Stats counts what a plugin did since it was loaded.
type Stats struct {
	Searches    int64  `json:"searches"`
	Failures    int64  `json:"failures"`  // failed builds, appends and searches; processes that ended
	Fallbacks   int64  `json:"fallbacks"` // searches answered exactly instead
	LastError   string `json:"last_error,omitempty"`
	Instances   int    `json:"instances"`
	Restarts    int64  `json:"restarts"`     // of a process, after it ended
	MemoryBytes int64  `json:"memory_bytes"` // linear memory of all instances
}

type statistics struct {
	calls, failures, fallbacks atomic.Int64

	mu   sync.Mutex
	last error
}

// Stats returns what the guard counted.
func (g *Guard) Stats() Stats {
	s := Stats{Searches: g.stats.calls.Load(), Failures: g.stats.failures.Load(), Fallbacks: g.stats.fallbacks.Load()}
	g.stats.mu.Lock()
	defer g.stats.mu.Unlock()
	if g.stats.last != nil {
		s.LastError = g.stats.last.Error()
	}
	return s
}

// Stats returns the counts so far.
func (p *Plugin) Stats() Stats {
	s := p.guard.Stats()
	s.Instances, s.MemoryBytes = p.pool.count(), p.memory.Load()
	return s
}
