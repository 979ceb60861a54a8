package fuel

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	asm "github.com/retrievalattention/ra/host/plugin/internal/wasmasm"
	"github.com/retrievalattention/ra/host/plugin/internal/wasmbin"
)

var (
	i32s   = []byte{asm.I32}
	getArg = asm.Op(0x20, 0)
)

// loops computes by an if, a block with results, a loop, br_table, a global
// and a call through a table.
func loops() []byte {
	m := &asm.Module{}
	m.Memory(1, 4)
	g := m.Global(asm.I32, asm.I32Const(3))
	m.Table(2, -1)
	double := m.Func("", i32s, i32s, nil, getArg, getArg, asm.Op(0x6a))
	square := m.Func("", i32s, i32s, nil, getArg, getArg, asm.Op(0x6c))
	m.Elem(double, square)
	m.Func("run", i32s, i32s, []byte{asm.I32, asm.I64}, // sum over i in [0, arg%1000) of f[i&1](i) ^ global
		getArg, asm.I32Const(1000), asm.Op(0x70), asm.Op(0x21, 0), // arg = arg %u 1000
		[]byte{0x02, 0x40, 0x03, 0x40},        // block, loop
		getArg, asm.Op(0x45), asm.Op(0x0d, 1), // leave at 0
		getArg, asm.I32Const(1), asm.Op(0x6b), asm.Op(0x21, 0),
		getArg, getArg, asm.I32Const(1), asm.Op(0x71), asm.Op(0x11, 0, 0), // call_indirect type 0
		asm.Op(0x23, g), asm.Op(0x73), asm.Op(0x20, 1), asm.Op(0x6a), asm.Op(0x21, 1),
		asm.Op(0x20, 1), asm.Op(0x24, g),
		getArg, asm.I32Const(3), asm.Op(0x71), []byte{0x0e, 1, 0, 0}, // br_table: always on with the loop
		[]byte{0x0b, 0x0b},
		asm.Op(0x20, 1),
	)
	return m.Bytes()
}

// bulk fills, copies, grows and initialises, and sums bytes with SIMD.
func bulk() []byte {
	m := &asm.Module{}
	m.Memory(1, 3)
	m.Table(4, 30)
	f := m.Func("", nil, nil, nil)
	m.Elem(f, f)
	m.Data(100, []byte("some bytes to copy around"))
	simd := func(sub int, imm ...byte) []byte { return append(asm.Op(0xfd, sub), imm...) }
	m.Func("run", i32s, i32s, nil,
		asm.I32Const(1000), getArg, asm.I32Const(500), asm.Op(0xfc, 11), []byte{0}, // fill
		asm.I32Const(1200), asm.I32Const(100), asm.I32Const(40), asm.Op(0xfc, 10), []byte{0, 0}, // copy
		asm.I32Const(0), asm.I32Const(1), asm.I32Const(1), asm.Op(0xfc, 14), []byte{0, 0}, // table.copy
		[]byte{0xd0, 0x70}, asm.I32Const(5), asm.Op(0xfc, 15), []byte{0}, // table.grow
		asm.I32Const(1), asm.Op(0x40), []byte{0}, asm.Op(0x6a), // + memory.grow
		asm.I32Const(1200), simd(0, 0, 0), asm.I32Const(1216), simd(0, 0, 0), simd(0x6e), simd(0x1b, 2), // add bytes, lane 2
		asm.Op(0x6a),
		[]byte{0x43, 0, 0, 0x80, 0x7f}, asm.Op(0xfc, 1), asm.Op(0x6a), // i32.trunc_sat_f32_u(+Inf)
		getArg, asm.Op(0xc0), asm.Op(0x6a), // i32.extend8_s
	)
	return m.Bytes()
}

// multi has block types that are function types, and select with a type.
func multi() []byte {
	m := &asm.Module{}
	m.Memory(1, 1)
	m.Func("", []byte{asm.I32, asm.I32}, []byte{asm.I32, asm.I32}, nil, asm.Op(0x20, 1), getArg)
	m.Func("run", i32s, i32s, nil,
		getArg, asm.I32Const(7),
		[]byte{0x03, 0x00}, asm.Op(0x10, 0), []byte{0x0b}, // loop (type 0): swap
		asm.I32Const(1), []byte{0x1c, 1, asm.I32},
	)
	return m.Bytes()
}

func TestRewriteKeepsResults(t *testing.T) {
	modules := map[string][]byte{"loops": loops(), "bulk": bulk(), "multi": multi()}
	rng := rand.New(rand.NewPCG(1, 2))
	for name, module := range modules {
		t.Run(name, func(t *testing.T) {
			rewritten, err := Rewrite(module, true)
			if err != nil {
				t.Fatal(err)
			}
			plain, charged := instantiate(t, module), instantiate(t, rewritten)
			counter := charged.ExportedGlobal(Global).(api.MutableGlobal)
			for range 200 {
				arg := uint64(rng.Uint32())
				counter.Set(1 << 40)
				want, wantErr := plain.ExportedFunction("run").Call(t.Context(), arg)
				got, gotErr := charged.ExportedFunction("run").Call(t.Context(), arg)
				if (wantErr == nil) != (gotErr == nil) || wantErr == nil && got[0] != want[0] {
					t.Fatalf("run(%d) = %v, %v; want %v, %v", arg, got, gotErr, want, wantErr)
				}
				if int64(counter.Get()) >= 1<<40 {
					t.Fatal("nothing was charged")
				}
			}
			a, b := plain.Memory(), charged.Memory()
			x, _ := a.Read(0, a.Size())
			y, _ := b.Read(0, b.Size())
			if !bytes.Equal(x, y) {
				t.Fatal("the memories differ")
			}
		})
	}
}

func instantiate(t testing.TB, module []byte) api.Module {
	t.Helper()
	rt := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigCompiler().WithCoreFeatures(api.CoreFeaturesV2))
	t.Cleanup(func() { rt.Close(context.Background()) })
	mod, err := rt.Instantiate(t.Context(), module)
	if err != nil {
		t.Fatal(err)
	}
	return mod
}

// units is a module with one exported function of the given body.
func units(body ...[]byte) []byte {
	m := &asm.Module{}
	m.Memory(2, -1)
	m.Table(40, -1)
	m.Func("run", nil, nil, nil, body...)
	return m.Bytes()
}

func TestCharges(t *testing.T) {
	cases := map[string]struct {
		module []byte
		want   int64
	}{
		"entry":             {units(), 1},
		"fill of 6400":      {units(asm.I32Const(0), asm.I32Const(0), asm.I32Const(6400), asm.Op(0xfc, 11), []byte{0}), 1 + 16 + 100},
		"copy of 63":        {units(asm.I32Const(0), asm.I32Const(0), asm.I32Const(63), asm.Op(0xfc, 10), []byte{0, 0}), 1 + 16},
		"grow by 2":         {units(asm.I32Const(2), asm.Op(0x40), []byte{0, 0x1a}), 1 + 16 + 2048},
		"grow by 4 GiB + 1": {units(asm.I32Const(65537), asm.Op(0x40), []byte{0, 0x1a}), 1 + 16},
		"grow by -1":        {units(asm.I32Const(-1), asm.Op(0x40), []byte{0, 0x1a}), 1 + 16},
		"table fill of 32":  {units(asm.I32Const(0), []byte{0xd0, 0x70}, asm.I32Const(32), asm.Op(0xfc, 17), []byte{0}), 1 + 16 + 4},
		"block":             {units([]byte{0x02, 0x40, 0x0b}), 1},
		"loop left at once": {units([]byte{0x03, 0x40, 0x0b}), 2},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			rewritten, err := Rewrite(c.module, true)
			if err != nil {
				t.Fatal(err)
			}
			mod := instantiate(t, rewritten)
			counter := mod.ExportedGlobal(Global).(api.MutableGlobal)
			counter.Set(1 << 20)
			if _, err := mod.ExportedFunction("run").Call(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := 1<<20 - int64(counter.Get()); got != c.want {
				t.Fatalf("charged %d, want %d", got, c.want)
			}
			// With exactly that much it runs, with one less it traps.
			counter.Set(uint64(c.want))
			if _, err := mod.ExportedFunction("run").Call(t.Context()); err != nil {
				t.Fatal(err)
			}
			counter.Set(uint64(c.want - 1))
			if _, err := mod.ExportedFunction("run").Call(t.Context()); err == nil || int64(counter.Get()) >= 0 {
				t.Fatalf("with too little: error %v, counter %d", err, int64(counter.Get()))
			}
		})
	}
}

func TestEndlessLoopAndRecursionEnd(t *testing.T) {
	recursion := &asm.Module{}
	recursion.Func("run", nil, nil, nil, asm.Op(0x10, 0))
	for name, module := range map[string][]byte{
		"loop":      units([]byte{0x03, 0x40, 0x0c, 0, 0x0b}),
		"recursion": recursion.Bytes(),
	} {
		rewritten, err := Rewrite(module, true)
		if err != nil {
			t.Fatal(err)
		}
		mod := instantiate(t, rewritten)
		counter := mod.ExportedGlobal(Global).(api.MutableGlobal)
		counter.Set(10_000)
		if _, err := mod.ExportedFunction("run").Call(t.Context()); err == nil || int64(counter.Get()) != -1 {
			t.Fatalf("%s: error %v, counter %d", name, err, int64(counter.Get()))
		}
	}
}

func TestTablesAreBounded(t *testing.T) {
	for _, charge := range []bool{false, true} {
		m := &asm.Module{}
		m.Table(1, -1)
		m.Func("run", i32s, i32s, nil, []byte{0xd0, 0x70}, getArg, asm.Op(0xfc, 15), []byte{0})
		rewritten, err := Rewrite(m.Bytes(), charge)
		if err != nil {
			t.Fatal(err)
		}
		mod := instantiate(t, rewritten)
		if charge {
			mod.ExportedGlobal(Global).(api.MutableGlobal).Set(1 << 40)
		}
		for arg, want := range map[uint64]int32{1 << 31: -1, MaxTable: -1} {
			got, err := mod.ExportedFunction("run").Call(t.Context(), arg)
			if err != nil || int32(got[0]) != want {
				t.Fatalf("charge %v: table.grow(%d) = %v, %v; want %d", charge, arg, got, err, want)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	reserved := &asm.Module{}
	reserved.Global(asm.I64, asm.I64Const(0))
	reserved.Export(Global, wasmbin.KindGlobal, 0)
	table := &asm.Module{}
	table.Table(MaxTable+1, -1)
	tables := &asm.Module{}
	for range maxTables + 1 {
		tables.Table(1, 1)
	}
	tail := &asm.Module{}
	tail.Func("run", nil, nil, nil, []byte{0x12, 0})
	atomic := &asm.Module{}
	atomic.Func("run", nil, nil, nil, []byte{0xfe, 0x10})
	relaxed := &asm.Module{}
	relaxed.Func("run", nil, nil, nil, []byte{0xfd, 0x80, 0x02})
	misc := &asm.Module{}
	misc.Func("run", nil, nil, nil, []byte{0xfc, 18})
	for name, c := range map[string]struct {
		module []byte
		kind   error
		text   string
	}{
		"reserved":   {reserved.Bytes(), ErrReserved, `reserved name: the module exports "ra_fuel", which is the host's fuel counter; rename it`},
		"big table":  {table.Bytes(), ErrTable, "table too large: it begins with 1048577 elements, at most 1048576 are allowed"},
		"tables":     {tables.Bytes(), ErrTable, "table too large: 9 tables, at most 8 are allowed"},
		"tail call":  {tail.Bytes(), wasmbin.ErrFormat, "malformed wasm module: offset 0x20: unknown opcode 0x12"},
		"atomics":    {atomic.Bytes(), wasmbin.ErrFormat, "malformed wasm module: offset 0x20: unknown opcode 0xfe"},
		"relaxed":    {relaxed.Bytes(), wasmbin.ErrFormat, "malformed wasm module: offset 0x20: unknown opcode 0xfd 256"},
		"misc":       {misc.Bytes(), wasmbin.ErrFormat, "malformed wasm module: offset 0x20: unknown opcode 0xfc 18"},
		"truncated":  {loops()[:40], wasmbin.ErrFormat, ""},
		"empty":      {nil, wasmbin.ErrFormat, "malformed wasm module: not WebAssembly: the file does not begin with \\0asm"},
		"component":  {[]byte("\x00asm\x0d\x00\x01\x00"), wasmbin.ErrFormat, "malformed wasm module: binary version 0x0d000100, want 0x1 (a component, or a newer format?)"},
		"no section": {append(bytes.Clone(wasmbin.Header), 13, 0), wasmbin.ErrFormat, "malformed wasm module: offset 0x9: unknown section 13"},
		"order":      {append(bytes.Clone(wasmbin.Header), 3, 1, 0, 1, 1, 0), wasmbin.ErrFormat, "malformed wasm module: offset 0xe: section 1 out of order or twice"},
	} {
		_, err := Rewrite(c.module, true)
		if !errors.Is(err, c.kind) || c.text != "" && err.Error() != c.text {
			t.Errorf("%s: got %v, want %s", name, err, c.text)
		}
	}
}

// TestCustomSections checks that names stay and that debugging sections,
// whose offsets would be wrong, go.
func TestCustomSections(t *testing.T) {
	m := &asm.Module{}
	m.Func("run", nil, nil, nil)
	m.Custom("name", []byte{1, 4, 1, 0, 1, 'f'})
	m.Custom(".debug_line", []byte("lines"))
	rewritten, err := Rewrite(m.Bytes(), true)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := wasmbin.Parse(rewritten)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range parsed.Sections {
		if s.ID == wasmbin.Custom {
			names = append(names, s.Name)
		}
	}
	if len(names) != 1 || names[0] != "name" {
		t.Fatalf("custom sections %q, want the name section alone", names)
	}
}

// FuzzRewrite: whatever wazero takes for a valid module must rewrite (or be
// refused) without a panic and then still be valid.
func FuzzRewrite(f *testing.F) {
	for _, m := range [][]byte{loops(), bulk(), multi(), units(), nil} {
		f.Add(m)
	}
	// Found here: a function section without a code section, and a vector
	// for which the runtime would have taken gigabytes.
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x03\x01\x00"))
	f.Add([]byte("\x00asm\x01\x00\x00\x00\n\x01\x00"))
	f.Add([]byte("\x00asm\x01\x00\x00\x00\t\t\xa7\xa7\xa70\xa7\xa7\xa7\xa70"))
	rt := wazero.NewRuntimeWithConfig(f.Context(), wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(api.CoreFeaturesV2))
	f.Cleanup(func() { rt.Close(context.Background()) })
	f.Fuzz(func(t *testing.T, module []byte) {
		if len(module) > 1<<14 {
			return
		}
		rewritten, err := Rewrite(module, true)
		if err != nil {
			return
		}
		c, err := rt.CompileModule(t.Context(), module)
		if err != nil {
			return
		}
		c.Close(t.Context())
		if c, err = rt.CompileModule(t.Context(), rewritten); err != nil {
			t.Fatalf("valid before, not after: %v", err)
		}
		c.Close(t.Context())
	})
}

func BenchmarkRewrite(b *testing.B) {
	module, err := os.ReadFile("../../../../plugins/dist/flat.wasm")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(module)))
	for b.Loop() {
		if _, err := Rewrite(module, true); err != nil {
			b.Fatal(err)
		}
	}
}
