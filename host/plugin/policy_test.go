package plugin

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	asm "github.com/retrievalattention/ra/host/plugin/internal/wasmasm"

	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/placement"
)

func loadPolicy(t *testing.T, o Options) *Policy {
	t.Helper()
	o.cache, o.Logger = moduleCache, slog.New(slog.DiscardHandler)
	p, err := LoadPolicy(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// TestSinkWindowPlugin: the shipped policy and the native one place every
// token alike while a sequence grows.
func TestSinkWindowPlugin(t *testing.T) {
	p := loadPolicy(t, Options{Name: "sinkwindow", Params: map[string]any{"sink": 3, "window": 6, "layers": "1=0/20"}})
	if d := p.Description(); d.Kind != "policy" || p.Info().Name != "sinkwindow" || p.Info().Runtime != "wasm" {
		t.Errorf("%+v, %+v", d, p.Info())
	}
	native := []placement.SinkWindow{{Sink: 3, Window: 6}, {Sink: 0, Window: 20}}
	rng := rand.New(rand.NewPCG(9, 9))
	got, want := newView(t, small, 1), newView(t, small, 1)
	for round := range 20 {
		for layer, w := range native {
			for _, x := range []struct {
				policy placement.Policy
				view   *kv.View
			}{{p, got}, {w, want}} {
				call := &placement.Call{View: x.view, Layer: layer, Prefill: 200, Decoding: round > 0}
				moves, err := x.policy.Place(t.Context(), call)
				if err == nil {
					err = placement.Check(call, moves)
				}
				if err != nil {
					t.Fatal(err)
				}
				placement.Apply(call, moves, true)
			}
			for pos := range want.Len() {
				if got.State(layer, pos) != want.State(layer, pos) {
					t.Fatalf("layer %d, token %d of %d: %s, want %s", layer, pos, want.Len(), got.State(layer, pos), want.State(layer, pos))
				}
			}
		}
		n := rng.IntN(12)
		got.Extend(n)
		want.Extend(n)
	}
	if s := p.Stats(); s.Searches != 40 || s.Failures != 0 {
		t.Errorf("%+v", s)
	}
}

// TestHostilePolicies: what breaks the rules fails with a reason, or moves
// nothing when the policy falls back.
func TestHostilePolicies(t *testing.T) {
	policy := func(calls ...[]byte) []byte {
		g := newGuest("place", "state_ranges", "fail", "emit")
		g.description = strings.Replace(guestDescription, "search", "policy", 1)
		for i, c := range calls {
			calls[i] = asm.Call(g.imported["place"], int32(c[0]), int32(c[1]), int32(c[2]))
		}
		return g.body("ra_place", append(calls, asm.I32Const(0))...).module()
	}
	for name, c := range map[string]struct {
		module []byte
		kind   error
		want   string
	}{
		"last token":  {policy([]byte{1, 10, 200}), placement.ErrMoves, "the last token, 199, is placed"},
		"beyond":      {policy([]byte{2, 10, 201}), placement.ErrMoves, "positions [10, 201) of a sequence of 200"},
		"static":      {policy([]byte{0, 10, 20}), placement.ErrMoves, "positions [10, 20) are to become static"},
		"twice":       {policy([]byte{1, 10, 20}, []byte{2, 19, 30}), placement.ErrMoves, "positions [19, 20) are placed twice"},
		"no state":    {policy([]byte{3, 10, 20}), ErrCall, "place: state 3, want 0 (static), 1 (indexed) or 2 (dropped)"},
		"wrong scope": {hostileEmit(), ErrCall, "emit: may not be called during ra_place, only during search"},
	} {
		t.Run(name, func(t *testing.T) {
			view := newView(t, geometry{layers: 2, kvHeads: 1, group: 1, dim: 4, tokens: []int{200}, sink: 200}, 1)
			call := &placement.Call{View: view, Layer: 1, Prefill: 200}
			_, err := loadPolicy(t, Options{Bytes: c.module}).Place(t.Context(), call)
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "plugin hostile@sha256:") || e.Operation != "place" || e.Layer != 1 {
				t.Errorf("got %v, want %q", err, c.want)
			}
			fallback := loadPolicy(t, Options{Bytes: c.module, OnFailure: Fallback})
			for range 3 {
				if moves, err := fallback.Place(t.Context(), call); err != nil || moves != nil {
					t.Errorf("with a fallback: %v, %v", moves, err)
				}
			}
			if s := fallback.Stats(); s.Failures != 3 || s.Fallbacks != 3 || s.Searches != 3 {
				t.Errorf("%+v", s)
			}
		})
	}
	if _, err := LoadPolicy(t.Context(), Options{Name: "flat", cache: moduleCache}); !errors.Is(err, ErrABI) || !strings.Contains(err.Error(), "flat is a search plugin, a policy plugin is asked for") {
		t.Errorf("a search plugin as policy: %v", err)
	}
}

// hostileEmit is a policy that emits hits.
func hostileEmit() []byte {
	g := newGuest("emit")
	g.description = strings.Replace(guestDescription, "search", "policy", 1)
	return g.body("ra_place", g.call("emit", 0, atIDs, 0, 0), asm.I32Const(0)).module()
}
