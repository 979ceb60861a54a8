// Package abi describes version 1 of the plugin ABI as data: the names and
// WebAssembly signatures of every function, the layouts of the structures
// that cross the boundary, the query tags and the limits.
//
// README.md in this folder is the ABI's document. The host builds its import
// table from this package; the Go SDK's import declarations, the C header,
// the Python constants and the document's tables are generated from it
// (`make abi`), and a test fails when one of them is not current.
package abi

import "strings"

// Type is a WebAssembly value type.
type Type uint8

// Value types that the ABI uses.
const (
	I32 Type = iota + 1
	I64
	F32
)

// String returns the type's name in the WebAssembly text format.
func (t Type) String() string {
	switch t {
	case I32:
		return "i32"
	case I64:
		return "i64"
	case F32:
		return "f32"
	}
	return "unknown"
}

// Elem is what the memory behind a pointer holds.
type Elem string

// Elements of arrays.
const (
	None  Elem = "" // the parameter is a plain number
	Bytes Elem = "u8"
	U32s  Elem = "u32"
	F32s  Elem = "f32"
)

// Param is a named parameter. A pointer is an I32 with an Elem; Out says that
// the host writes there.
type Param struct {
	Name string
	Type Type
	Elem Elem
	Out  bool
}

// Scope is the set of exports during which a function may be called.
type Scope uint8

// Scopes. ScopeAny includes initialisation and ra_describe.
const (
	ScopeConfigure Scope = 1 << iota
	ScopeBuild
	ScopeAppend
	ScopeSearch
	ScopeWeigh
	ScopePlace
	ScopeInit // _initialize and ra_describe

	ScopeStatus = ScopeConfigure | ScopeBuild | ScopeAppend | ScopeSearch | ScopeWeigh | ScopePlace
	ScopeIndex  = ScopeBuild | ScopeAppend // the calls for one KV head
	ScopeStore  = ScopeIndex | ScopeSearch | ScopeWeigh | ScopePlace
	ScopeAny    = ScopeStatus | ScopeInit
)

// String lists the scope as the document does.
func (s Scope) String() string {
	if s == ScopeAny {
		return "any"
	}
	var names []string
	for i, name := range []string{"configure", "build", "append", "search", "weigh", "place", "init"} {
		if s>>i&1 == 1 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// Func is the name and signature of a function that the host offers.
type Func struct {
	Name    string
	Params  []Param
	Results []Type
	Scope   Scope
}

// Export is a function that a module offers.
type Export struct {
	Func            // Scope is zero
	Kind     string // the kind of plugin that has it; empty: all
	Optional bool
	Doc      string // one line
}

// Signature returns the signature in the WebAssembly text format, without
// parameter names: "(param i32 i32) (result i32)"; "()" for none at all.
func (f Func) Signature() string { return f.text(false) }

// WAT returns the function as the document's table has it:
// "(func $score (param $query i32) ... (result i32))".
func (f Func) WAT() string {
	s := f.text(true)
	if s == "()" {
		return "(func $" + f.Name + ")"
	}
	return "(func $" + f.Name + " " + s + ")"
}

func (f Func) text(named bool) string {
	var parts []string
	switch {
	case named:
		for _, p := range f.Params {
			parts = append(parts, "(param $"+p.Name+" "+p.Type.String()+")")
		}
	case len(f.Params) > 0:
		s := "(param"
		for _, p := range f.Params {
			s += " " + p.Type.String()
		}
		parts = append(parts, s+")")
	}
	if len(f.Results) > 0 {
		s := "(result"
		for _, t := range f.Results {
			s += " " + t.String()
		}
		parts = append(parts, s+")")
	}
	if len(parts) == 0 {
		return "()"
	}
	return strings.Join(parts, " ")
}

// params reads a list of parameters, apart by spaces: "n" is a u32, "x:f32" a
// number of that type, "ids<u32" an array that the host reads and "out>f32"
// one that it writes.
func params(list string) []Param {
	var ps []Param
	for _, s := range strings.Fields(list) {
		p := Param{Name: s, Type: I32}
		if i := strings.IndexAny(s, ":<>"); i >= 0 {
			p.Name = s[:i]
			if s[i] == ':' {
				p.Type = F32
			} else {
				p.Elem, p.Out = Elem(s[i+1:]), s[i] == '>'
			}
		}
		ps = append(ps, p)
	}
	return ps
}

// Exports are the functions that a plugin exports, next to its memory,
// exported as "memory".
func Exports() []Export {
	status := []Type{I32}
	export := func(kind, name, list string, results []Type, doc string) Export {
		return Export{Func: Func{Name: name, Params: params(list), Results: results}, Kind: kind, Doc: doc}
	}
	optional := func(e Export) Export {
		e.Optional = true
		return e
	}
	return []Export{
		export("", Marker, "", nil, "Marker of the version. Never called."),
		export("", "ra_describe", "", []Type{I64}, "Address (upper 32 bits) and length (lower) of the description, which stays valid until the next call."),
		export("", "ra_configure", "params_len", status, "Takes the parameters, `params_len` bytes of text to be had from `params_read`."),
		export(KindSearch, "ra_build", "layer kv_head", status, "Prepares the search of one KV head of a layer, after prefill."),
		export(KindSearch, "ra_append", "layer kv_head lo hi", status, "Positions `[lo, hi)` were indexed: make them findable."),
		export(KindSearch, "ra_search", "layer", status, "Emits hits for all queries of the call's KV heads."),
		optional(export(KindSearch, "ra_weigh", "layer", status, "Gives the hits of the search that just ended their biases, now that their logits are known. Called when the description lists `weigh` under `needs`.")),
		export(KindPolicy, "ra_place", "layer", status, "Places tokens of one layer, after the prefill and while decoding."),
	}
}

// Imports are the functions that the host offers.
func Imports() []Func {
	n := []Type{I32}
	return []Func{
		{"log", params("level text<u8 text_len"), nil, ScopeAny},
		{"fail", params("text<u8 text_len"), nil, ScopeStatus},
		{"params_read", params("buf>u8 buf_limit"), n, ScopeConfigure},
		{"store_info", params("sequence kv_head buf>u32 buf_limit"), n, ScopeStore},
		{"indexed_ranges", params("sequence kv_head buf>u32 buf_limit"), n, ScopeStore},
		{"read_vectors", params("what sequence kv_head ids<u32 n out>f32"), nil, ScopeStore},
		{"blob_put", params("slot data<u8 n"), nil, ScopeIndex},
		{"blob_get", params("sequence kv_head slot offset buf>u8 buf_limit"), n, ScopeIndex | ScopeSearch | ScopeWeigh},
		{"build_info", params("buf>u32 buf_limit"), n, ScopeIndex},
		{"queries_info", params("buf>u32 buf_limit"), n, ScopeSearch | ScopeWeigh},
		{"read_queries", params("query n_queries out>f32"), nil, ScopeIndex | ScopeSearch | ScopeWeigh},
		{"score", params("query n_queries ids<u32 n out>f32"), nil, ScopeIndex | ScopeSearch},
		{"score_range", params("query n_queries lo hi out>f32"), nil, ScopeIndex | ScopeSearch},
		{"topk_range", params("query n_queries lo hi k out_ids>u32 out_scores>f32 out_counts>u32"), n, ScopeIndex | ScopeSearch},
		{"emit", params("query ids<u32 bias<f32 n"), nil, ScopeSearch},
		{"emit_summary", params("query n logits<f32 log_mults<f32 values<f32"), nil, ScopeSearch},
		{"hits_read", params("query out_ids>u32 out_logits>f32 limit"), n, ScopeWeigh},
		{"emit_bias", params("query bias<f32 n"), nil, ScopeWeigh},
		{"place_info", params("buf>u32 buf_limit"), n, ScopePlace},
		{"state_ranges", params("state buf>u32 buf_limit"), n, ScopePlace},
		{"place", params("state lo hi"), nil, ScopePlace},
	}
}
