package plugin

import (
	"sync"
	"sync/atomic"
)

// Stats counts what a plugin did since it was loaded.
type Stats struct {
	Searches    int64  `json:"searches"`
	Failures    int64  `json:"failures"`  // failed builds, appends and searches
	Fallbacks   int64  `json:"fallbacks"` // searches answered exactly instead
	LastError   string `json:"last_error,omitempty"`
	Instances   int    `json:"instances"`
	MemoryBytes int64  `json:"memory_bytes"` // linear memory of all instances
}

type statistics struct {
	calls, failures, fallbacks atomic.Int64

	mu   sync.Mutex
	last error
}

// Stats returns the counts so far.
func (p *Plugin) Stats() Stats {
	s := Stats{
		Searches: p.stats.calls.Load(), Failures: p.stats.failures.Load(), Fallbacks: p.stats.fallbacks.Load(),
		Instances: p.pool.count(), MemoryBytes: p.memory.Load(),
	}
	p.stats.mu.Lock()
	defer p.stats.mu.Unlock()
	if p.stats.last != nil {
		s.LastError = p.stats.last.Error()
	}
	return s
}

func (p *Plugin) errorOf(operation string, layer, step int, err error) error {
	return &Error{Plugin: p.desc.Name, Digest: p.digest, Operation: operation, Layer: layer, Step: step, Err: err}
}

// failed counts and logs a failure and returns it as an Error.
func (p *Plugin) failed(operation string, layer, step int, cause error) error {
	err := p.errorOf(operation, layer, step, cause)
	p.stats.mu.Lock()
	p.stats.last = err
	p.stats.mu.Unlock()
	if n := p.stats.failures.Add(1); worthSaying(n) {
		p.log.Warn("plugin failed", "error", err, "failures", n, "on_failure", string(p.opts.OnFailure))
	}
	return err
}

// fellBack counts a search answered exactly.
func (p *Plugin) fellBack() {
	if n := p.stats.fallbacks.Add(1); worthSaying(n) {
		p.log.Warn("search answered by exact search instead of the plugin", "fallbacks", n, "searches", p.stats.calls.Load())
	}
}

// worthSaying is true for 1 and the powers of ten.
func worthSaying(n int64) bool {
	for n >= 10 && n%10 == 0 {
		n /= 10
	}
	return n == 1
}
