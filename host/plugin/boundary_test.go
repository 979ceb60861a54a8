package plugin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/placement"
	asm "github.com/retrievalattention/ra/host/plugin/internal/wasmasm"
	"github.com/retrievalattention/ra/host/plugin/internal/wasmbin"
	"github.com/retrievalattention/ra/host/retrieval"
	abi "github.com/retrievalattention/ra/sdk/abi/v1"
)

// boundary calls single host functions from a guest that passes its arguments
// on.
type boundary struct {
	p     *Plugin
	names []string
	call  *retrieval.Call
	store []byte // all keys and values, as they were

	queries []float32 // of the prefill
	res     retrieval.Result
}

var boundaryScopes = []abi.Scope{abi.ScopeSearch, abi.ScopeBuild, abi.ScopeAppend, abi.ScopeWeigh, abi.ScopePlace, abi.ScopeConfigure, abi.ScopeInit}

func newBoundary(t testing.TB) *boundary {
	b := &boundary{}
	g := &guest{imported: map[string]int{}, description: guestDescription, pages: 1, data: map[int][]byte{}}
	var signatures [][2][]byte
	add := func(module, name string, params, results []byte) {
		g.importing(module, name, params, results)
		b.names = append(b.names, name)
		signatures = append(signatures, [2][]byte{params, results})
	}
	for _, f := range abi.Imports() {
		add(abi.Module, f.Name, valueTypes(f.Params), resultTypes(f.Results))
	}
	i32 := asm.I32
	for _, name := range []string{"clock_res_get", "random_get", "args_sizes_get", "fd_prestat_get", "path_open"} {
		add(wasiModule, name, []byte{i32, i32}, []byte{i32})
	}
	for _, name := range []string{"fd_write", "poll_oneoff"} {
		add(wasiModule, name, []byte{i32, i32, i32, i32}, []byte{i32})
	}
	for i, name := range b.names {
		var code []byte
		for j := range signatures[i][0] {
			code = append(code, asm.Op(0x20, j)...)
		}
		g.Func("call_"+name, signatures[i][0], signatures[i][1], nil, code, asm.Op(0x10, g.imported[name]))
	}
	b.p = load(t, Options{Bytes: g.module(), Instances: 1})
	view := newView(t, small, 1)
	b.call = newCall(small, 1, view)
	b.store = storeBytes(view.Context())
	b.queries = make([]float32, 5*b.call.Heads*small.dim)
	return b
}

// storeBytes copies everything that a context stores.
func storeBytes(c *kv.Context) []byte {
	var all []byte
	g := c.Geometry()
	for l := range g.Layers {
		for h := range g.KVHeads {
			for s := range c.Segments(l, h, 0, c.Len()) {
				for _, rows := range []kernel.Rows{s.Keys, s.Values} {
					for _, v := range rows.U16 {
						all = binary.LittleEndian.AppendUint16(all, v)
					}
				}
			}
		}
	}
	return all
}

// try makes one call and fails unless it returns or traps as it should.
func (b *boundary) try(t testing.TB, scope abi.Scope, function int, memory []byte, args [8]uint64) {
	in, err := b.p.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer b.p.release(in)
	in.begin(t.Context(), scope, b.p.opts.Limits.SearchTimeout)
	in.fuel.Set(1e6)
	c := &in.call
	c.export = "ra_search"
	if scope&abi.ScopeStore != 0 {
		c.layer, c.views, c.kvHeads = 1, b.call.Views, small.kvHeads
	}
	switch scope {
	case abi.ScopeBuild:
		c.head, c.build = 1, &retrieval.Build{View: b.call.Views[0], Layer: 1, Heads: b.call.Heads, Queries: b.queries}
	case abi.ScopeAppend:
		c.head = 1
	case abi.ScopeSearch, abi.ScopeWeigh:
		b.res.Reset(b.call.Count())
		c.search, c.result = b.call, &b.res
	case abi.ScopePlace:
		c.place = &placement.Call{View: b.call.Views[0], Layer: 1, Prefill: 3}
	}
	if scope == abi.ScopeWeigh {
		for i := range b.res.Hits {
			b.res.Hits[i].IDs = append(b.res.Hits[i].IDs, 10, 11)
			if len(in.logits) <= i {
				in.logits = append(in.logits, nil)
			}
			in.logits[i] = append(in.logits[i][:0], 0.5, 0.25)
		}
	}
	in.view.Write(atIDs, memory[:min(len(memory), 1<<14)])
	f := in.mod.ExportedFunction("call_" + b.names[function])
	if _, err := f.Call(in.ctx, args[:len(f.Definition().ParamTypes())]...); err != nil {
		in.broken = true
		if err := in.explain(err); !errors.Is(err, ErrCall) && !errors.Is(err, retrieval.ErrHits) && !errors.Is(err, ErrCapability) {
			t.Fatalf("%s%v: %v", b.names[function], args, err)
		}
	} else if scope == abi.ScopeSearch || scope == abi.ScopeWeigh {
		_ = in.checkHits() // must not panic
	} else if scope == abi.ScopePlace {
		_ = placement.Check(c.place, c.moves) // must not panic
	}
	if in.view.Size() != 65536 {
		t.Fatalf("%s%v: the memory has %d bytes", b.names[function], args, in.view.Size())
	}
}

func (b *boundary) check(t testing.TB) {
	if !bytes.Equal(b.store, storeBytes(b.call.Views[0].Context())) {
		t.Fatal("the store changed")
	}
}

// TestRandomHostCalls throws arguments near the limits at every function.
func TestRandomHostCalls(t *testing.T) {
	b := newBoundary(t)
	rng := rand.New(rand.NewPCG(1, 7))
	edges := []uint64{0, 1, 2, 3, 4, 8, 9, 16, 100, 191, 192, 199, 200, 201, atIDs, atIDs + 1, atOut, 65528, 65532, 65535, 65536, 65537, 1 << 30, 1<<31 - 1, 1 << 31, 1<<32 - 4, 1<<32 - 1}
	memory := make([]byte, 4096)
	for i := 0; i < len(memory); i += 4 {
		binary.LittleEndian.PutUint32(memory[i:], rng.Uint32N(210))
	}
	for range 10_000 {
		var args [8]uint64
		for j := range args {
			args[j] = edges[rng.IntN(len(edges))] | rng.Uint64()<<32 // garbage in the upper half
		}
		if rng.IntN(2) == 0 { // a likelier call
			args[0], args[1], args[2] = rng.Uint64N(4), 1+rng.Uint64N(2), rng.Uint64N(2)
		}
		b.try(t, boundaryScopes[max(0, rng.IntN(14)-7)], rng.IntN(len(b.names)), memory, args)
	}
	b.check(t)
}

// FuzzHostCalls lets the fuzzer choose function, scope, arguments and the
// guest's memory.
func FuzzHostCalls(f *testing.F) {
	b := newBoundary(f)
	for i := range b.names {
		f.Add(uint8(i), uint8(0), []byte{10, 0, 0, 0, 11, 0, 0, 0}, uint32(0), uint32(2), uint32(0), uint32(200), uint32(4), uint32(atIDs), uint32(0), uint32(atOut))
		f.Add(uint8(i), uint8(1), []byte{}, uint32(0), uint32(0), uint32(0), uint32(atIDs), uint32(1), uint32(atOut), uint32(0), uint32(0))
	}
	f.Fuzz(func(t *testing.T, function, scope uint8, memory []byte, a0, a1, a2, a3, a4, a5, a6, a7 uint32) {
		args := [8]uint64{}
		for i, a := range []uint32{a0, a1, a2, a3, a4, a5, a6, a7} {
			args[i] = uint64(a) | 0xdeadbeef<<32
		}
		b.try(t, boundaryScopes[int(scope)%len(boundaryScopes)], int(function)%len(b.names), memory, args)
		b.check(t)
	})
}

// TestHostTableMatchesABI: every function of the ABI is implemented, and
// nothing else is.
func TestHostTableMatchesABI(t *testing.T) {
	named := map[string]bool{}
	for _, f := range abi.Imports() {
		named[f.Name] = true
		if hostFuncs[f.Name] == nil {
			t.Errorf("%s is not implemented", f.Name)
		}
	}
	for name := range hostFuncs {
		if !named[name] {
			t.Errorf("%s is not in the ABI", name)
		}
	}
}

// TestBuiltinsAgreeWithABI: what the Go toolchain made of the SDK imports and
// exports what the ABI says, which Load checks, and nothing that is unknown.
func TestBuiltinsAgreeWithABI(t *testing.T) {
	for _, name := range Builtins() {
		module, err := builtin(name)
		if err != nil {
			t.Fatal(err)
		}
		m, err := wasmbin.Parse(module)
		if err != nil {
			t.Fatal(err)
		}
		known := map[string]bool{"memory": true, "_initialize": true}
		for _, f := range abi.Exports() {
			known[f.Name] = true
		}
		for _, e := range m.Exports {
			if !known[e.Name] {
				t.Errorf("%s exports %q", name, e.Name)
			}
		}
		p, err := loadKind(t.Context(), Options{Name: name}, "")
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if p.Info().Name != name || p.Info().Digest != Digest(module) || p.Info().Runtime != "wasm" {
			t.Errorf("%s is described as %+v", name, p.Info())
		}
	}
}
