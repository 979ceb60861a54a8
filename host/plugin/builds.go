package plugin

import (
	"runtime"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
)

// builds remembers for which view and layer the index could not be built, as
// long as the view lives.
//
// A forked view has the index of its parent, which the plugin is not told of.
// So a view that was never built counts as failed while any view's build of
// that layer has failed: its searches are then slower, but never wrong.
type builds struct {
	failures atomic.Int64 // entries of ok that are false
	mu       sync.Mutex
	ok       map[layerOf]bool
}

type layerOf struct {
	view  weak.Pointer[kv.View]
	layer int
}

// record notes the outcome of a build, or the failure of an append.
func (b *builds) record(view *kv.View, layer int, ok bool) {
	key := layerOf{weak.Make(view), layer}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ok == nil {
		b.ok = map[layerOf]bool{}
	}
	was, known := b.ok[key]
	if !known {
		runtime.AddCleanup(view, b.forget, key)
	}
	b.ok[key] = ok
	b.count(known && !was, !ok)
}

// count keeps failures in step with one entry's change.
func (b *builds) count(before, after bool) {
	if before {
		b.failures.Add(-1)
	}
	if after {
		b.failures.Add(1)
	}
}

func (b *builds) forget(key layerOf) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ok, known := b.ok[key]; known {
		b.count(!ok, false)
		delete(b.ok, key)
	}
}

// failed reports whether searches of a layer of the view lack their index.
func (b *builds) failed(view *kv.View, layer int) bool {
	if b.failures.Load() == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if ok, known := b.ok[layerOf{weak.Make(view), layer}]; known {
		return !ok
	}
	for key, ok := range b.ok {
		if key.layer == layer && !ok {
			return true
		}
	}
	return false
}

// anyFailed is failed for the views of a call.
func (b *builds) anyFailed(call *retrieval.Call) bool {
	for _, v := range call.Views {
		if b.failed(v, call.Layer) {
			return true
		}
	}
	return false
}
