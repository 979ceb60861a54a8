package placement_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/placement"
)

// newView returns a view of n tokens.
func newView(t *testing.T, n int) *kv.View {
	t.Helper()
	c, err := kv.NewContext(kv.Geometry{Layers: 1, KVHeads: 1, HeadDim: 2, DType: kernel.F32}, 1, kv.NewAllocator(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	v := kv.NewView(c)
	v.Extend(n)
	return v
}

func TestSinkWindow(t *testing.T) {
	for _, w := range []placement.SinkWindow{{Sink: -1, Window: 5}, {Sink: 1, Window: 0}} {
		if w.Validate() == nil {
			t.Errorf("%+v is accepted", w)
		}
	}
	r := rand.New(rand.NewPCG(5, 5))
	for range 200 {
		w := placement.SinkWindow{Sink: r.IntN(6), Window: 1 + r.IntN(8)}
		v := newView(t, 1+r.IntN(30))
		for range 4 {
			call := &placement.Call{View: v}
			moves, err := w.Place(context.Background(), call)
			if err == nil {
				err = placement.Check(call, moves)
			}
			if err != nil {
				t.Fatal(err)
			}
			placement.Apply(call, moves, true)
			for p := range v.Len() {
				want := kv.Indexed
				if p < w.Sink || p >= v.Len()-w.Window {
					want = kv.Static
				}
				if got := v.State(0, p); got != want {
					t.Fatalf("%+v, %d tokens: token %d is %s, want %s", w, v.Len(), p, got, want)
				}
			}
			v.Extend(r.IntN(20))
		}
	}
}

func TestCheck(t *testing.T) {
	v := newView(t, 20)
	v.Place(0, kv.Range{Lo: 2, Hi: 4}, kv.Indexed)
	v.Place(0, kv.Range{Lo: 8, Hi: 10}, kv.Dropped)
	call := &placement.Call{View: v}
	move := func(lo, hi int, to kv.State) placement.Move {
		return placement.Move{Range: kv.Range{Lo: lo, Hi: hi}, To: to}
	}
	for _, c := range []struct {
		moves []placement.Move
		want  string // empty: valid
	}{
		{nil, ""},
		{[]placement.Move{move(0, 8, kv.Indexed), move(10, 19, kv.Indexed)}, ""},
		{[]placement.Move{move(0, 19, kv.Dropped)}, ""},
		{[]placement.Move{move(20, 20, kv.Dropped)}, ""},
		{[]placement.Move{move(0, 20, kv.Indexed)}, "the last token, 19, is placed"},
		{[]placement.Move{move(5, 21, kv.Indexed)}, "positions [5, 21) of a sequence of 20"},
		{[]placement.Move{move(-1, 2, kv.Indexed)}, "positions [-1, 2)"},
		{[]placement.Move{move(5, 4, kv.Indexed)}, "positions [5, 4)"},
		{[]placement.Move{move(2, 4, kv.Static)}, "are to become static; a token can become indexed or dropped"},
		{[]placement.Move{move(9, 12, kv.Indexed)}, "dropped tokens of [9, 12) are to become indexed"},
		{[]placement.Move{move(11, 14, kv.Indexed), move(13, 15, kv.Dropped)}, "positions [13, 14) are placed twice"},
	} {
		err := placement.Check(call, c.moves)
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, placement.ErrMoves) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: %v, want %q", c.moves, err, c.want)
		}
	}
	got := placement.Apply(call, []placement.Move{move(0, 8, kv.Indexed), move(12, 14, kv.Dropped)}, true)
	if want := []kv.Range{{Lo: 0, Hi: 2}, {Lo: 4, Hi: 8}}; !slices.Equal(got, want) {
		t.Errorf("newly indexed: %v, want %v", got, want)
	}
	if v.Count(0, kv.Indexed) != 8 || v.State(0, 13) != kv.Dropped {
		t.Error("the moves were not carried out")
	}
	if got := placement.Apply(call, []placement.Move{move(14, 16, kv.Indexed)}, false); got != nil || v.State(0, 15) != kv.Dropped {
		t.Errorf("without a search: %v indexed, token 15 is %s", got, v.State(0, 15))
	}
}
