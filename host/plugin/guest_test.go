package plugin

import (
	"encoding/binary"
	"slices"

	asm "github.com/retrievalattention/ra/host/plugin/internal/wasmasm"
	abi "github.com/retrievalattention/ra/sdk/abi/v1"
)

// Places in a test guest's memory.
const (
	atDescription = 1024
	atIDs         = 4096
	atBias        = 8192
	atOut         = 16384
)

const guestDescription = `{"name":"hostile","version":"1","kind":"search","features":[],"parameters":[]}`

// guest is a small plugin under construction: a correct one whose exports do
// nothing, until parts of it are replaced.
type guest struct {
	asm.Module
	imported    map[string]int
	description string
	pages       int
	bodies      map[string][][]byte // of exports
	without     []string            // exports left out
	data        map[int][]byte
}

// newGuest returns a guest that imports the given functions.
func newGuest(imports ...string) *guest {
	g := &guest{imported: map[string]int{}, description: guestDescription, pages: 1, bodies: map[string][][]byte{}, data: map[int][]byte{}}
	for _, f := range abi.Imports() {
		if slices.Contains(imports, f.Name) {
			g.imported[f.Name] = g.Import(abi.Module, f.Name, valueTypes(f.Params), resultTypes(f.Results))
		}
	}
	return g
}

// importing adds an import that the ABI does not describe.
func (g *guest) importing(module, name string, params, results []byte) *guest {
	g.imported[name] = g.Import(module, name, params, results)
	return g
}

// body replaces the body of an export; it must leave the result.
func (g *guest) body(export string, code ...[]byte) *guest {
	g.bodies[export] = code
	return g
}

// search is body for ra_search, with the status 0 added.
func (g *guest) search(code ...[]byte) *guest {
	return g.body("ra_search", append(code, asm.I32Const(0))...)
}

// call is a call of an import with constant arguments.
func (g *guest) call(name string, args ...int32) []byte {
	return asm.Call(g.imported[name], args...)
}

func (g *guest) words(at int, words ...uint32) *guest {
	var b []byte
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	g.data[at] = b
	return g
}

func (g *guest) module() []byte {
	if !slices.Contains(g.without, "memory") {
		g.Memory(g.pages, -1)
	}
	g.Data(atDescription, []byte(g.description))
	for at, b := range g.data {
		g.Data(at, b)
	}
	for _, f := range abi.Exports() {
		if slices.Contains(g.without, f.Name) {
			continue
		}
		code := g.bodies[f.Name]
		if code == nil {
			switch {
			case f.Name == "ra_describe":
				code = [][]byte{asm.I64Const(atDescription<<32 | int64(len(g.description)))}
			case len(f.Results) > 0:
				code = [][]byte{asm.I32Const(0)}
			}
		}
		g.Func(f.Name, valueTypes(f.Params), resultTypes(f.Results), nil, code...)
	}
	return g.Bytes()
}

// forever repeats code.
func forever(code ...[]byte) []byte {
	return asm.Cat(asm.Cat([]byte{0x03, 0x40}, code...), []byte{0x0c, 0, 0x0b})
}

var (
	drop        = []byte{0x1a}
	unreachable = []byte{0x00}
	memoryGrow  = []byte{0x40, 0}
)
