// Package wasmasm assembles small WebAssembly modules for tests.
package wasmasm

import (
	"github.com/retrievalattention/ra/host/plugin/internal/wasmbin"
)

// Value types.
const (
	I32     byte = 0x7f
	I64     byte = 0x7e
	F32     byte = 0x7d
	F64     byte = 0x7c
	Funcref byte = 0x70
)

// Module is a module under construction. Import functions before the first
// Func.
type Module struct {
	types, imports, funcs, codes, exports, globals, data, tables, elems [][]byte
	nImports                                                            int
	memory                                                              []byte
	start                                                               []byte
	extra                                                               []byte
}

func (m *Module) typ(params, results []byte) int {
	t := append([]byte{0x60}, vec(params)...)
	m.types = append(m.types, append(t, vec(results)...))
	return len(m.types) - 1
}

// Import declares an imported function and returns its index.
func (m *Module) Import(module, name string, params, results []byte) int {
	b := wasmbin.AppendName(wasmbin.AppendName(nil, module), name)
	m.imports = append(m.imports, wasmbin.AppendU32(append(b, wasmbin.KindFunc), uint32(m.typ(params, results))))
	m.nImports++
	return m.nImports - 1
}

// ImportRaw adds an import whose descriptor is given in binary.
func (m *Module) ImportRaw(module, name string, descriptor ...byte) {
	m.imports = append(m.imports, append(wasmbin.AppendName(wasmbin.AppendName(nil, module), name), descriptor...))
}

// Func adds a function and returns its index. locals are value types; body
// lacks the final end. A non-empty name exports it.
func (m *Module) Func(name string, params, results, locals []byte, body ...[]byte) int {
	m.funcs = append(m.funcs, wasmbin.AppendU32(nil, uint32(m.typ(params, results))))
	code := wasmbin.AppendU32(nil, uint32(len(locals)))
	for _, l := range locals {
		code = append(code, 1, l)
	}
	code = append(Cat(code, body...), 0x0b)
	m.codes = append(m.codes, vec(code))
	index := m.nImports + len(m.funcs) - 1
	if name != "" {
		m.Export(name, wasmbin.KindFunc, index)
	}
	return index
}

// Export exports an entity.
func (m *Module) Export(name string, kind byte, index int) {
	m.exports = append(m.exports, wasmbin.AppendU32(append(wasmbin.AppendName(nil, name), kind), uint32(index)))
}

// Memory declares a memory in pages, max < 0 for none, exported as "memory".
func (m *Module) Memory(min, max int) {
	m.memory = limits(nil, min, max)
	m.Export("memory", wasmbin.KindMemory, 0)
}

// Table declares a table of function references.
func (m *Module) Table(min, max int) { m.tables = append(m.tables, limits([]byte{Funcref}, min, max)) }

// Elem places functions in table 0 from element 0.
func (m *Module) Elem(funcs ...int) {
	b := append(Cat([]byte{0}, I32Const(0)), 0x0b)
	b = wasmbin.AppendU32(b, uint32(len(funcs)))
	for _, f := range funcs {
		b = wasmbin.AppendU32(b, uint32(f))
	}
	m.elems = append(m.elems, b)
}

// Global declares a mutable global with an initial value given as code.
func (m *Module) Global(typ byte, init []byte) int {
	m.globals = append(m.globals, append(Cat([]byte{typ, 1}, init), 0x0b))
	return len(m.globals) - 1
}

// Data places bytes in memory.
func (m *Module) Data(offset int, b []byte) {
	d := append(Cat([]byte{0}, I32Const(int32(offset))), 0x0b)
	m.data = append(m.data, append(d, vec(b)...))
}

// Start declares a start function.
func (m *Module) Start(index int) { m.start = wasmbin.AppendU32(nil, uint32(index)) }

// Custom appends a custom section at the end.
func (m *Module) Custom(name string, body []byte) {
	b := append(wasmbin.AppendName(nil, name), body...)
	m.extra = append(append(m.extra, wasmbin.Custom), vec(b)...)
}

// Bytes returns the module in binary.
func (m *Module) Bytes() []byte {
	out := append([]byte(nil), wasmbin.Header...)
	section := func(id byte, items [][]byte) {
		if len(items) == 0 {
			return
		}
		body := Cat(wasmbin.AppendU32(nil, uint32(len(items))), items...)
		out = append(append(out, id), vec(body)...)
	}
	section(wasmbin.Type, m.types)
	section(wasmbin.Import, m.imports)
	section(wasmbin.Function, m.funcs)
	section(wasmbin.Table, m.tables)
	if m.memory != nil {
		section(wasmbin.Memory, [][]byte{m.memory})
	}
	section(wasmbin.Global, m.globals)
	section(wasmbin.Export, m.exports)
	if m.start != nil {
		out = append(append(out, wasmbin.Start), vec(m.start)...)
	}
	section(wasmbin.Element, m.elems)
	section(wasmbin.Code, m.codes)
	section(wasmbin.Data, m.data)
	return append(out, m.extra...)
}

func limits(b []byte, min, max int) []byte {
	if max < 0 {
		return wasmbin.AppendU32(append(b, 0), uint32(min))
	}
	return wasmbin.AppendU32(wasmbin.AppendU32(append(b, 1), uint32(min)), uint32(max))
}

func vec(b []byte) []byte {
	return append(wasmbin.AppendU32(nil, uint32(len(b))), b...)
}

// Cat concatenates code.
func Cat(first []byte, rest ...[]byte) []byte {
	out := append([]byte(nil), first...)
	for _, b := range rest {
		out = append(out, b...)
	}
	return out
}

// I32Const pushes v.
func I32Const(v int32) []byte { return wasmbin.AppendI64([]byte{0x41}, int64(v)) }

// I64Const pushes v.
func I64Const(v int64) []byte { return wasmbin.AppendI64([]byte{0x42}, v) }

// Op is an opcode with u32 immediates.
func Op(op byte, imm ...int) []byte {
	b := []byte{op}
	for _, i := range imm {
		b = wasmbin.AppendU32(b, uint32(i))
	}
	return b
}

// Call calls a function with constant i32 arguments.
func Call(index int, args ...int32) []byte {
	var b []byte
	for _, a := range args {
		b = append(b, I32Const(a)...)
	}
	return append(b, Op(0x10, index)...)
}
