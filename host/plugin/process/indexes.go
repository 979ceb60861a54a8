package process

import (
	"cmp"
	"errors"
	"os"
	"runtime"
	"slices"
	"sync"
	"weak"

	"github.com/retrievalattention/ra/host/kv"
	contract "github.com/retrievalattention/ra/sdk/process/v1"
)

// index is what the plugin holds, or should hold, of one layer of a view: the
// tokens known when it was built, or for a fork those of the parent's index,
// and the tail that was appended since.
type index struct {
	view    weak.Pointer[kv.View]
	id      uint64 // of the view
	layer   int
	heads   int
	built   bool               // false: the fork of a view, only appended to
	last    *contract.Sequence // of the latest build or append
	tail    []kv.Range
	sent    int      // how much of the tail the process was told of
	process int64    // number of the process that holds the index, 0 for none
	failed  int64    // number of the process that could not restore it
	busy    bool     // a call about it is under way
	saved   *os.File // the plugin's export of what was built, nil for none
}

// indexes are the indexes of all views that live.
type indexes struct {
	mu    sync.Mutex
	views map[uint64]map[int]*index // by view and layer
	gone  []uint64                  // views that the plugin is to forget
	// Signals, one of which is kept: there is something gone, or something to
	// restore.
	forgetting, stale chan struct{}
}

func (x *indexes) init() {
	x.views = map[uint64]map[int]*index{}
	x.forgetting, x.stale = make(chan struct{}, 1), make(chan struct{}, 1)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// get returns the index of a layer of a view, made when there is none. The
// lock is held.
func (x *indexes) get(v *kv.View, layer int) *index {
	layers := x.views[v.ID()]
	if layers == nil {
		layers = map[int]*index{}
		x.views[v.ID()] = layers
		runtime.AddCleanup(v, x.drop, v.ID())
	}
	i := layers[layer]
	if i == nil {
		i = &index{view: weak.Make(v), id: v.ID(), layer: layer}
		layers[layer] = i
	}
	return i
}

// drop forgets a view that nobody can reach any more.
func (x *indexes) drop(id uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, i := range x.views[id] {
		i.discard()
	}
	delete(x.views, id)
	x.gone = append(x.gone, id)
	signal(x.forgetting)
}

// discard closes the export.
func (i *index) discard() error {
	if i.saved == nil {
		return nil
	}
	err := i.saved.Close()
	i.saved = nil
	return err
}

// build begins an index anew.
func (x *indexes) build(v *kv.View, layer, heads int, s *contract.Sequence) *index {
	x.mu.Lock()
	defer x.mu.Unlock()
	i := x.get(v, layer)
	i.discard()
	i.built, i.heads, i.last, i.tail, i.sent, i.process, i.busy = true, heads, s, nil, 0, 0, true
	return i
}

// append adds to an index, or begins that of a fork. It reports whether the
// process holds what comes before: if not, restoring will see to the tail.
func (x *indexes) append(v *kv.View, layer int, r kv.Range, s *contract.Sequence, process int64) (*index, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	begun := x.views[v.ID()][layer] != nil
	i := x.get(v, layer)
	ready := process != 0 && x.holds(v.Parent(), layer, process) && (!begun || i.process == process)
	i.last, i.tail = s, append(i.tail, r)
	i.busy = i.busy || ready
	return i, ready
}

// done ends work on an index that the process now holds, up to the given
// length of the tail.
func (x *indexes) done(i *index, process int64, sent int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i.busy, i.process, i.sent = false, process, sent
	signal(x.stale) // the process may have ended meanwhile
}

// wait ends work on an index that is to be restored.
func (x *indexes) wait(i *index) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i.busy = false
	signal(x.stale)
}

// ready reports whether a process holds what a search of the view needs.
func (x *indexes) ready(v *kv.View, layer int, process int64) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.holds(v, layer, process)
}

func (x *indexes) holds(v *kv.View, layer int, process int64) bool {
	for ; v != nil; v = v.Parent() {
		if i := x.views[v.ID()][layer]; i != nil && i.process != process {
			return false
		}
	}
	return true
}

// next returns an index that the process should hold and does not, those of
// parents before those of their forks, or nil. The caller ends its work on it
// by done or fail.
func (x *indexes) next(process int64) *index {
	x.mu.Lock()
	defer x.mu.Unlock()
	var best *index
	for _, layers := range x.views {
		for _, i := range layers {
			if i.process == process && i.sent == len(i.tail) || i.failed == process || i.busy {
				continue
			}
			if best == nil || cmp.Or(cmp.Compare(i.id, best.id), cmp.Compare(i.layer, best.layer)) < 0 {
				best = i
			}
		}
	}
	if best != nil {
		best.busy = true
	}
	return best
}

// snapshot returns what is to be told about an index.
func (x *indexes) snapshot(i *index) (last *contract.Sequence, tail []kv.Range, sent int, held int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return i.last, slices.Clone(i.tail), i.sent, i.process
}

// fail ends work on an index that the process could not restore.
func (x *indexes) fail(i *index, process int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i.busy, i.failed = false, process
}

// take returns the views to forget.
func (x *indexes) take() []uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	gone := x.gone
	x.gone = nil
	return gone
}

func (x *indexes) close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var errs []error
	for _, layers := range x.views {
		for _, i := range layers {
			errs = append(errs, i.discard())
		}
	}
	return errors.Join(errs...)
}
