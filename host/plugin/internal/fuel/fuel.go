// Package fuel rewrites a WebAssembly module so that it cannot run for ever.
//
// Go cannot interrupt the machine code that wazero makes, and a guest that
// loops would stop the whole host at its next garbage collection. So the
// guest counts for itself: a mutable global, exported as [Global], is charged
// at every function entry and every loop head, and by length at every bulk
// operation; below zero the guest traps. What lies between two charges is
// straight-line code, so the time a call can take is bounded by its fuel.
//
// The rewriter adds types, functions and a global behind the existing ones,
// so no index in the module changes. It must be given valid modules only:
// one that names a global which does not exist yet could reach the counter.
package fuel

import (
	"errors"
	"fmt"
	"strings"

	"github.com/retrievalattention/ra/host/plugin/internal/wasmbin"
)

// Global is the name under which an instrumented module exports its counter,
// a mutable i64 that starts at zero: set it before the first call. It is
// negative exactly when the module ran out.
const Global = "ra_fuel"

// Units charged: one at a function entry and a loop head, and for bulk
// operations bulkCost and one for each 64 bytes (for tables, 8 elements).
// bulkCost keeps a unit at about a nanosecond: short operations took 22 ns.
const (
	bulkCost      = 16
	bytesShift    = 6
	elementsShift = 3
	pagesShift    = 16 - bytesShift // to the left
)

// MaxTable is the largest number of elements that a table of a rewritten
// module may have. wazero keeps tables on the Go heap, where a failed
// allocation ends the process.
const MaxTable = 1 << 20

const maxTables = 8

// Errors of Rewrite, beside wasmbin.ErrFormat.
var (
	ErrReserved = errors.New("reserved name")
	ErrTable    = errors.New("table too large")
)

// Rewrite returns module, which must be valid, with its tables bounded and,
// when charge is set, with fuel. Debugging sections are dropped, for their
// offsets would be wrong.
func Rewrite(module []byte, charge bool) ([]byte, error) {
	m, err := wasmbin.Parse(module)
	if err != nil {
		return nil, err
	}
	for _, e := range m.Exports {
		if e.Name == Global {
			return nil, fmt.Errorf("%w: the module exports %q, which is the host's fuel counter; rename it", ErrReserved, Global)
		}
	}
	if len(m.Tables) > maxTables {
		return nil, fmt.Errorf("%w: %d tables, at most %d are allowed", ErrTable, len(m.Tables), maxTables)
	}
	w := &writer{m: m, out: append(make([]byte, 0, len(module)+len(module)/4), wasmbin.Header...), charge: charge}
	for _, s := range m.Sections {
		if err := w.section(s); err != nil {
			return nil, err
		}
	}
	w.missing(wasmbin.Section{ID: wasmbin.Data})
	return w.out, nil
}

// writer assembles the rewritten module.
type writer struct {
	m      *wasmbin.Module
	out    []byte
	buf    []byte // body of the section in work
	prefix []byte // the charge of one unit, made once
	charge bool

	global, export bool // written
}

// missing adds the sections that must exist and that s comes after.
func (w *writer) missing(s wasmbin.Section) {
	if !w.charge {
		return
	}
	if !w.global && s.Order() > (wasmbin.Section{ID: wasmbin.Global}).Order() {
		w.global = true
		w.emit(wasmbin.Global, w.counter([]byte{1}))
	}
	if !w.export && s.Order() > (wasmbin.Section{ID: wasmbin.Export}).Order() {
		w.export = true
		w.emit(wasmbin.Export, w.exported([]byte{1}))
	}
}

func (w *writer) emit(id byte, body []byte) {
	w.out = wasmbin.AppendU32(append(w.out, id), uint32(len(body)))
	w.out = append(w.out, body...)
}

func (w *writer) section(s wasmbin.Section) error {
	w.missing(s)
	r := wasmbin.NewReader(s.Body, s.Offset)
	switch {
	case s.ID == wasmbin.Custom && strings.HasPrefix(s.Name, ".debug_"):
		return nil
	case s.ID == wasmbin.Table:
		w.emit(s.ID, w.tables())
		for _, t := range w.m.Tables {
			if t.Limits.Min > MaxTable {
				return fmt.Errorf("%w: it begins with %d elements, at most %d are allowed", ErrTable, t.Limits.Min, MaxTable)
			}
		}
	case !w.charge, w.m.Defined == 0 && (s.ID == wasmbin.Function || s.ID == wasmbin.Code):
		w.emit(s.ID, s.Body) // an empty section may stand without its twin
	case s.ID == wasmbin.Type:
		w.emit(s.ID, append(w.more(r, 1), 0x60, 1, i32, 1, i32)) // the helpers' type
	case s.ID == wasmbin.Function:
		body := w.more(r, helpers)
		for range helpers {
			body = wasmbin.AppendU32(body, uint32(w.m.Types))
		}
		w.emit(s.ID, body)
	case s.ID == wasmbin.Global:
		w.global = true
		w.emit(s.ID, w.counter(w.more(r, 1)))
	case s.ID == wasmbin.Export:
		w.export = true
		w.emit(s.ID, w.exported(w.more(r, 1)))
	case s.ID == wasmbin.Code:
		if err := w.code(r); err != nil {
			return err
		}
	default:
		w.emit(s.ID, s.Body)
	}
	return r.Err()
}

// more returns a vector's bytes with room for n elements more in its count.
func (w *writer) more(r *wasmbin.Reader, n int) []byte {
	count := r.Count()
	rest := r.Rest()
	w.buf = wasmbin.AppendU32(w.buf[:0], uint32(count+n))
	return append(w.buf, rest...)
}

func (w *writer) tables() []byte {
	w.buf = wasmbin.AppendU32(w.buf[:0], uint32(len(w.m.Tables)))
	for _, t := range w.m.Tables {
		top := uint32(MaxTable)
		if t.Limits.HasMax {
			top = min(top, t.Limits.Max)
		}
		w.buf = wasmbin.AppendU32(append(w.buf, t.Elem, 1), t.Limits.Min)
		w.buf = wasmbin.AppendU32(w.buf, top)
	}
	return w.buf
}

func (w *writer) counter(body []byte) []byte {
	return append(body, i64, 1, opI64Const, 0, opEnd)
}

func (w *writer) exported(body []byte) []byte {
	body = append(wasmbin.AppendName(body, Global), wasmbin.KindGlobal)
	return wasmbin.AppendU32(body, uint32(w.m.Globals))
}
