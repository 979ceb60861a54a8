package kv

import (
	"fmt"
	"sort"
	"sync/atomic"
)

// State says how a view treats a token.
type State uint8

// Token states. A new token is static.
const (
	Static  State = iota // attended exactly at every step
	Indexed              // attended when a search returns it
	Dropped              // never attended
)

// String returns the state's name.
func (s State) String() string {
	switch s {
	case Static:
		return "static"
	case Indexed:
		return "indexed"
	case Dropped:
		return "dropped"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Range is the positions [Lo, Hi).
type Range struct{ Lo, Hi int }

// Len returns the number of positions.
func (r Range) Len() int { return r.Hi - r.Lo }

// View is one reading of a context: a state for each token of each layer. A
// view is used by one request at a time; many views can share a context. A
// view with index objects attached must be closed.
type View struct {
	ctx     *Context
	layers  []placement
	objects attachments
	id      uint64
	parent  *View // what it was forked from
}

// ids counts the views made.
var ids atomic.Uint64

// placement is one layer's states: runs in order, adjacent runs differ, the
// last run ends at the view's length.
type placement struct {
	runs []run
}

type run struct {
	end   int
	state State
}

// NewView returns a view of ctx in which all its tokens are static.
func NewView(ctx *Context) *View {
	v := &View{ctx: ctx, layers: make([]placement, ctx.geo.Layers), id: ids.Add(1)}
	v.Extend(ctx.Len())
	return v
}

// ID returns the view's number among all views of this program, from 1 on. A
// fork has a larger one than what it was forked from.
func (v *View) ID() uint64 { return v.id }

// Parent returns the view that this one was forked from, nil for none. A fork
// keeps its parent reachable.
func (v *View) Parent() *View { return v.parent }

// Context returns the context that the view reads.
func (v *View) Context() *Context { return v.ctx }

// Len returns the number of tokens that the view covers.
func (v *View) Len() int { return v.layers[0].len() }

// Extend covers n more tokens at the end, static in every layer.
func (v *View) Extend(n int) {
	if n == 0 {
		return
	}
	for i := range v.layers {
		p := &v.layers[i]
		p.put(p.len(), p.len()+n, Static)
	}
}

// Fork returns a view with the same states over ctx, a fork of the view's
// context, and with forks of the view's index objects.
func (v *View) Fork(ctx *Context) *View {
	f := &View{ctx: ctx, layers: make([]placement, len(v.layers)), id: ids.Add(1), parent: v}
	for i, p := range v.layers {
		f.layers[i].runs = append([]run(nil), p.runs...)
	}
	v.objects.fork(&f.objects)
	return f
}

// Place gives positions r of one layer the given state. It panics when r
// reaches beyond the view: a host bug.
func (v *View) Place(layer int, r Range, s State) {
	p := &v.layers[layer]
	if r.Lo < 0 || r.Hi < r.Lo || r.Hi > p.len() {
		panic(fmt.Sprintf("kv: place [%d, %d) in a view of %d tokens", r.Lo, r.Hi, p.len()))
	}
	p.put(r.Lo, r.Hi, s)
}

// State returns the state of the token at pos, which must be below Len.
func (v *View) State(layer, pos int) State { return v.layers[layer].at(pos) }

// Count returns how many tokens of a layer have state s.
func (v *View) Count(layer int, s State) int {
	n := 0
	for r := range v.Ranges(layer, s) {
		n += r.Len()
	}
	return n
}

// Ranges yields the maximal ranges of positions with state s, in order.
func (v *View) Ranges(layer int, s State) func(yield func(Range) bool) {
	return func(yield func(Range) bool) {
		lo := 0
		for _, r := range v.layers[layer].runs {
			if r.state == s && !yield(Range{lo, r.end}) {
				return
			}
			lo = r.end
		}
	}
}

func (p *placement) len() int {
	if len(p.runs) == 0 {
		return 0
	}
	return p.runs[len(p.runs)-1].end
}

func (p *placement) at(pos int) State {
	i := sort.Search(len(p.runs), func(i int) bool { return p.runs[i].end > pos })
	return p.runs[i].state
}

// put overwrites [lo, hi); hi may lie beyond the end, lo may not.
func (p *placement) put(lo, hi int, s State) {
	if lo >= hi {
		return
	}
	out := make([]run, 0, len(p.runs)+2)
	add := func(end int, st State) {
		switch n := len(out); {
		case n > 0 && out[n-1].end >= end:
		case n > 0 && out[n-1].state == st:
			out[n-1].end = end
		default:
			out = append(out, run{end, st})
		}
	}
	start := 0
	for _, r := range p.runs {
		if start < lo {
			add(min(r.end, lo), r.state)
		}
		start = r.end
	}
	if lo > 0 && len(out) == 0 {
		panic("kv: hole in a placement")
	}
	add(hi, s)
	for _, r := range p.runs {
		if r.end > hi {
			add(r.end, r.state)
		}
	}
	p.runs = out
}
