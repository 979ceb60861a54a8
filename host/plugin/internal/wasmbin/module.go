// Package wasmbin reads the binary format of WebAssembly modules: as much of
// it as the plugin host needs to check a module and to rewrite it.
//
// It reads what the core specification 2.0 allows, refuses the rest by name,
// and bounds what a module may make the runtime allocate. It does not
// validate: that is the runtime's part, done on the original bytes before they
// are rewritten.
package wasmbin

import (
	"bytes"
	"fmt"
)

// Section ids.
const (
	Custom byte = iota
	Type
	Import
	Function
	Table
	Memory
	Global
	Export
	Start
	Element
	Code
	Data
	DataCount
)

// Kinds of imports and exports.
const (
	KindFunc byte = iota
	KindTable
	KindMemory
	KindGlobal
)

// Header is the magic and version that every module begins with.
var Header = []byte{0, 'a', 's', 'm', 1, 0, 0, 0}

// order is the place of each section in a module: DataCount comes between
// Element and Code.
var order = [...]int{Type: 1, Import: 2, Function: 3, Table: 4, Memory: 5, Global: 6, Export: 7, Start: 8, Element: 9, DataCount: 10, Code: 11, Data: 12}

// Section is one section. Body is borrowed from the module's bytes.
type Section struct {
	ID     byte
	Name   string // of a custom section
	Body   []byte
	Offset int // of Body in the module
}

// Order returns the section's place among the others, 0 for custom ones.
func (s Section) Order() int {
	if s.ID == Custom {
		return 0
	}
	return order[s.ID]
}

// Entity is an import or an export.
type Entity struct {
	Module string // of an import
	Name   string
	Kind   byte
	Index  uint32 // of an export: into its kind's index space
}

// Limits are those of a memory (in pages) or a table (in elements).
type Limits struct {
	Min, Max uint32
	HasMax   bool
}

// Module is what a module declares. Counts of index spaces include imports.
type Module struct {
	Sections []Section
	Imports  []Entity
	Exports  []Entity
	Types    int
	Funcs    int
	Defined  int // functions that are not imported
	Globals  int
	Tables   []TableType // defined, not imported
	Memories []Limits    // defined, not imported
	HasStart bool
}

// TableType is the type of a table.
type TableType struct {
	Elem   byte
	Limits Limits
}

// Parse reads the sections of a module and what they declare; of function
// bodies only how many locals they have.
func Parse(b []byte) (*Module, error) {
	if len(b) < len(Header) || !bytes.Equal(b[:4], Header[:4]) {
		return nil, fmt.Errorf("%w: not WebAssembly: the file does not begin with \\0asm", ErrFormat)
	}
	if !bytes.Equal(b[:len(Header)], Header) {
		return nil, fmt.Errorf("%w: binary version %#x, want 0x1 (a component, or a newer format?)", ErrFormat, b[4:8])
	}
	m := &Module{}
	last := 0
	for r := (&Reader{data: b, pos: len(Header)}); r.More(); {
		s := Section{ID: r.Byte()}
		if int(s.ID) >= len(order) {
			r.Fail("unknown section %d", s.ID)
			return nil, r.err
		}
		size := int(r.U32())
		s.Offset = r.Offset()
		s.Body = r.Bytes(size)
		if r.err != nil {
			return nil, r.err
		}
		if o := s.Order(); o != 0 {
			if o <= last {
				r.Fail("section %d out of order or twice", s.ID)
				return nil, r.err
			}
			last = o
		}
		if err := m.section(&s); err != nil {
			return nil, err
		}
		m.Sections = append(m.Sections, s)
	}
	return m, nil
}

func (m *Module) section(s *Section) error {
	r := NewReader(s.Body, s.Offset)
	switch s.ID {
	case Custom:
		s.Name = r.Name()
		if s.Name == "name" {
			r.names()
		}
	case Type:
		m.Types = r.types()
	case Import:
		for range r.atMost(maxEntries, "imports") {
			m.readImport(r)
		}
	case Function:
		m.Defined = r.atMost(maxEntries, "functions")
		m.Funcs += m.Defined
	case Table:
		for range r.atMost(maxSegments, "tables") {
			m.Tables = append(m.Tables, TableType{r.Byte(), r.limits()})
		}
	case Memory:
		for range r.atMost(maxSegments, "memories") {
			m.Memories = append(m.Memories, r.limits())
		}
	case Global:
		m.Globals += r.atMost(maxEntries, "globals")
	case Export:
		for range r.atMost(maxEntries, "exports") {
			m.Exports = append(m.Exports, Entity{Name: r.Name(), Kind: r.Byte(), Index: r.U32()})
		}
	case Start:
		m.HasStart = true
	case Element:
		r.elements()
	case Code:
		r.bodies()
	case Data:
		r.segments()
	}
	return r.err
}

func (m *Module) readImport(r *Reader) {
	e := Entity{Module: r.Name(), Name: r.Name(), Kind: r.Byte()}
	switch e.Kind {
	case KindFunc:
		r.U32()
		m.Funcs++
	case KindTable:
		r.Byte()
		r.limits()
	case KindMemory:
		r.limits()
	case KindGlobal:
		r.Byte()
		r.Byte()
		m.Globals++
	default:
		r.Fail("import %q.%q of unknown kind %d", e.Module, e.Name, e.Kind)
	}
	m.Imports = append(m.Imports, e)
}

func (r *Reader) limits() Limits {
	switch flag := r.Byte(); flag {
	case 0:
		return Limits{Min: r.U32()}
	case 1:
		return Limits{Min: r.U32(), Max: r.U32(), HasMax: true}
	default:
		r.Fail("limits with flags %#x (shared or 64-bit memories are not supported)", flag)
		return Limits{}
	}
}
