package plugin

import (
	"context"

	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/placement"
	"github.com/retrievalattention/ra/host/retrieval"
	abi "github.com/retrievalattention/ra/sdk/abi/v1"
)

// Policy is a loaded placement policy. It is safe for concurrent use.
type Policy struct{ p *Plugin }

var _ placement.Policy = (*Policy)(nil)

// LoadPolicy is [Load] for a placement policy.
func LoadPolicy(ctx context.Context, o Options) (*Policy, error) {
	p, err := loadKind(ctx, o, abi.KindPolicy)
	if err != nil {
		return nil, err
	}
	return &Policy{p}, nil
}

// Info identifies the policy.
func (p *Policy) Info() retrieval.Info { return p.p.Info() }

// Description returns what the policy says about itself. It is shared; do
// not change it.
func (p *Policy) Description() *Description { return p.p.desc }

// Stats returns the policy's counts.
func (p *Policy) Stats() Stats { return p.p.Stats() }

// Close frees the instances and the compiled module. No call may be under
// way.
func (p *Policy) Close() error { return p.p.Close() }

// Place asks the guest. When it fails and the policy falls back, no token
// moves: what is static is attended to, so that answers lose nothing, and the
// next call may place it.
func (p *Policy) Place(ctx context.Context, call *placement.Call) ([]placement.Move, error) {
	p.p.stats.calls.Add(1)
	moves, err := p.place(ctx, call)
	if err == nil || ctx.Err() != nil {
		return moves, err
	}
	err = p.p.failed("place", call.Layer, -1, err)
	if p.p.opts.OnFailure == Fail {
		return nil, err
	}
	if n := p.p.stats.fallbacks.Add(1); worthSaying(n) {
		p.p.log.Warn("the policy failed: tokens stay static until it is asked again", "fallbacks", n, "calls", p.p.stats.calls.Load())
	}
	return nil, nil
}

func (p *Policy) place(ctx context.Context, call *placement.Call) ([]placement.Move, error) {
	if p.p.closed.Load() {
		return nil, ErrClosed
	}
	in, err := p.p.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer p.p.release(in)
	in.begin(ctx, abi.ScopePlace, p.p.opts.Limits.SearchTimeout)
	c := &in.call
	c.layer, c.place, c.views = call.Layer, call, []*kv.View{call.View}
	c.kvHeads = call.View.Context().Geometry().KVHeads
	if err := in.status("ra_place", uint64(call.Layer)); err != nil {
		return nil, err
	}
	if err := placement.Check(call, c.moves); err != nil {
		in.broken = true
		return nil, err
	}
	return c.moves, nil
}

func (in *instance) hostPlaceInfo(a args) {
	call := in.call.place
	geo := call.View.Context().Geometry()
	var f [abi.PlaceWords]uint32
	f[abi.PlaceTokens], f[abi.PlacePrefill] = uint32(call.View.Len()), uint32(call.Prefill)
	if call.Decoding {
		f[abi.PlaceDecoding] = 1
	}
	f[abi.PlaceLayers], f[abi.PlaceKVHeads], f[abi.PlaceHeadDim] = uint32(geo.Layers), uint32(geo.KVHeads), uint32(geo.HeadDim)
	in.putWords(a, a.u32(0), a.u32(1), f[:])
}

// state checks a state argument.
func (in *instance) state(s uint32) kv.State {
	if s > abi.StateDropped {
		in.trap(ErrCall, "state %d, want 0 (static), 1 (indexed) or 2 (dropped)", s)
	}
	return kv.State(s)
}

func (in *instance) hostStateRanges(a args) {
	in.putRanges(a, in.call.place.View, in.state(a.u32(0)), a.u32(1), a.u32(2))
}

// maxMoves bounds what one call may place.
const maxMoves = 1 << 12

// hostPlace notes a move. It is checked, and done, when the call is over.
func (in *instance) hostPlace(a args) {
	c := &in.call
	to, lo, hi := in.state(a.u32(0)), a.u32(1), a.u32(2)
	if len(c.moves) == maxMoves {
		in.trap(ErrCall, "more than %d ranges in one call", maxMoves)
	}
	in.spend(int64(len(c.moves)))
	c.moves = append(c.moves, placement.Move{Range: kv.Range{Lo: int(lo), Hi: int(hi)}, To: to})
}
