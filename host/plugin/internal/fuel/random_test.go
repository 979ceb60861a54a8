package fuel

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	asm "github.com/retrievalattention/ra/host/plugin/internal/wasmasm"
)

// generator writes random programs that end: loops count down, and functions
// call only earlier ones.
type generator struct {
	rng       *rand.Rand
	functions int // that may be called
	loops     int // nested at the moment
}

// Locals: 0 to 3 are variables, 4 and up the counters of nested loops.
const (
	variables = 4
	maxLoops  = 3
)

func (g *generator) variable() int { return g.rng.IntN(variables) }

// address leaves an address well within the memory's one page.
func (g *generator) address(depth int) []byte {
	return asm.Cat(g.expression(depth), asm.I32Const(0x7fff), asm.Op(0x71))
}

// length leaves a length of at most 255.
func (g *generator) length(depth int) []byte {
	return asm.Cat(g.expression(depth), asm.I32Const(255), asm.Op(0x71))
}

// expression leaves an i32.
func (g *generator) expression(depth int) []byte {
	if depth == 0 {
		if g.rng.IntN(2) == 0 {
			return asm.I32Const(int32(g.rng.Uint32()) >> g.rng.IntN(32))
		}
		return asm.Op(0x20, g.variable())
	}
	a, b := g.expression(depth-1), g.expression(depth-1)
	switch g.rng.IntN(8) {
	case 0:
		return asm.Cat(g.address(depth-1), []byte{0x2d, 0, 0}) // i32.load8_u
	case 1:
		return asm.Cat(a, b, g.expression(depth-1), asm.Op(0x1b)) // select
	case 2:
		return asm.Cat(a, []byte{0x04, asm.I32}, b, []byte{0x05}, g.expression(depth-1), []byte{0x0b}) // if with a result
	case 3:
		return asm.Cat(a, asm.Op(0xfd, 17), b, asm.Op(0xfd, 17), asm.Op(0xfd, 0xae), asm.Op(0xfd, 27), []byte{byte(g.rng.IntN(4))}) // i32x4 splat, add, extract
	case 4:
		return asm.Cat(a, asm.Op(0xb2), asm.Op(0xfc, 0)) // to f32 and back, saturating
	case 5:
		if g.functions > 0 {
			return asm.Cat(a, asm.Op(0x10, g.rng.IntN(g.functions)))
		}
	}
	ops := []byte{0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76, 0x77, 0x46, 0x48, 0x49, 0x4f}
	op := ops[g.rng.IntN(len(ops))]
	if division := op >= 0x6d && op <= 0x70; division && g.rng.IntN(50) > 0 { // by zero now and then
		b = asm.Cat(b, asm.I32Const(1), asm.Op(0x72))
	}
	return asm.Cat(a, b, asm.Op(op))
}

// statements leave nothing.
func (g *generator) statements(n, depth int) (code []byte) {
	for range n {
		code = append(code, g.statement(depth)...)
	}
	return code
}

func (g *generator) statement(depth int) []byte {
	if depth > 0 {
		body := g.statements(1+g.rng.IntN(3), depth-1)
		switch g.rng.IntN(4) {
		case 0:
			return asm.Cat(g.expression(1), []byte{0x04, 0x40}, body, []byte{0x05}, g.statement(depth-1), []byte{0x0b})
		case 1: // a block left early at times
			return asm.Cat([]byte{0x02, 0x40}, g.expression(1), asm.Op(0x0d, 0), body, []byte{0x0b})
		case 2: // br_table over two blocks
			return asm.Cat([]byte{0x02, 0x40, 0x02, 0x40}, g.expression(1), []byte{0x0e, 2, 0, 1, 0, 0x0b}, body, []byte{0x0b})
		}
		if g.loops < maxLoops {
			counter := variables + g.loops
			g.loops++
			body = g.statements(2, depth-1)
			g.loops--
			return asm.Cat(asm.I32Const(int32(g.rng.IntN(6))), asm.Op(0x21, counter),
				[]byte{0x02, 0x40, 0x03, 0x40}, asm.Op(0x20, counter), asm.Op(0x45), asm.Op(0x0d, 1),
				asm.Op(0x20, counter), asm.I32Const(1), asm.Op(0x6b), asm.Op(0x21, counter), body, []byte{0x0c, 0, 0x0b, 0x0b})
		}
	}
	switch g.rng.IntN(5) {
	case 0:
		return asm.Cat(g.address(1), g.expression(2), []byte{0x36, 0, 0}) // i32.store
	case 1:
		return asm.Cat(g.address(1), g.expression(1), g.length(1), asm.Op(0xfc, 11), []byte{0}) // fill
	case 2:
		return asm.Cat(g.address(1), g.address(1), g.length(1), asm.Op(0xfc, 10), []byte{0, 0}) // copy
	default:
		return asm.Cat(g.expression(2), asm.Op(0x21, g.variable()))
	}
}

func (g *generator) module() []byte {
	m := &asm.Module{}
	m.Memory(1, 2)
	m.Data(64, []byte("the beginning of the memory of a random program"))
	locals := bytes.Repeat([]byte{asm.I32}, variables-1+maxLoops)
	for i := range 3 {
		name := ""
		if i == 2 {
			name = "run"
		}
		m.Func(name, i32s, i32s, locals, g.statements(3, 2), g.expression(2))
		g.functions++
	}
	return m.Bytes()
}

// TestRandomPrograms: a rewritten program computes what the original does,
// and the same fuel is used every time.
func TestRandomPrograms(t *testing.T) {
	n := uint64(150)
	if testing.Short() {
		n = 30
	}
	rt := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(api.CoreFeaturesV2))
	defer rt.Close(t.Context())
	run := func(module []byte, args []uint32) (results []int64, memory []byte, used []int64) {
		mod, err := rt.InstantiateWithConfig(t.Context(), module, wazero.NewModuleConfig().WithName(""))
		if err != nil {
			t.Fatal(err)
		}
		defer mod.Close(t.Context())
		counter, _ := mod.ExportedGlobal(Global).(api.MutableGlobal)
		for _, arg := range args {
			if counter != nil {
				counter.Set(1 << 40)
			}
			r, err := mod.ExportedFunction("run").Call(t.Context(), uint64(arg))
			if err != nil {
				r = []uint64{1 << 40} // a trap
			}
			results = append(results, int64(r[0]))
			if counter != nil {
				used = append(used, 1<<40-int64(counter.Get()))
			}
		}
		memory, _ = mod.Memory().Read(0, mod.Memory().Size())
		return results, bytes.Clone(memory), used
	}
	traps := 0
	for seed := range n {
		rng := rand.New(rand.NewPCG(seed, 3))
		module := (&generator{rng: rng}).module()
		args := []uint32{0, 1, rng.Uint32(), rng.Uint32()}
		rewritten, err := Rewrite(module, true)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		want, wantMemory, _ := run(module, args)
		got, gotMemory, used := run(rewritten, args)
		_, _, again := run(rewritten, args)
		for i := range want {
			if got[i] != want[i] || used[i] != again[i] || used[i] <= 0 {
				t.Fatalf("seed %d: run(%d) = %d using %d, then %d; want %d", seed, args[i], got[i], used[i], again[i], want[i])
			}
			if want[i] == 1<<40 {
				traps++
			}
		}
		if !bytes.Equal(gotMemory, wantMemory) {
			t.Fatalf("seed %d: the memories differ", seed)
		}
	}
	if total := 4 * int(n); traps > total/2 {
		t.Errorf("%d of %d calls trapped: the programs show too little", traps, total)
	}
}
