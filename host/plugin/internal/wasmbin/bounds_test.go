package wasmbin

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// module returns a module of the given sections.
func module(sections ...[]byte) []byte {
	return slices.Concat(append([][]byte{Header}, sections...)...)
}

// section returns a section of that id.
func section(id byte, body ...byte) []byte {
	return append(AppendU32([]byte{id}, uint32(len(body))), body...)
}

// huge is a vector length of 268,435,455.
var huge = []byte{0xff, 0xff, 0xff, 0x7f}

// A module of a few bytes cannot ask for more entries than its bytes hold,
// wherever the runtime would allocate for them.
func TestCountsAreBounded(t *testing.T) {
	vec := func(prefix ...byte) []byte { return append(prefix, huge...) }
	many := append(AppendU32(nil, 200_000), make([]byte, 400_000)...)
	for name, c := range map[string]struct {
		module []byte
		text   string
	}{
		"types":             {module(section(Type, vec()...)), "vector of 268435455 elements in 0 bytes"},
		"parameters":        {module(section(Type, vec(1, 0x60)...)), "vector of 268435455"},
		"results":           {module(section(Type, vec(1, 0x60, 0)...)), "vector of 268435455"},
		"imports":           {module(section(Import, vec()...)), "vector of 268435455"},
		"import name":       {module(section(Import, vec(1)...)), "268435455 bytes wanted"},
		"functions":         {module(section(Function, vec()...)), "vector of 268435455"},
		"tables":            {module(section(Table, vec()...)), "vector of 268435455"},
		"globals":           {module(section(Global, vec()...)), "vector of 268435455"},
		"exports":           {module(section(Export, vec()...)), "vector of 268435455"},
		"element segments":  {module(section(Element, vec()...)), "vector of 268435455"},
		"element indices":   {module(section(Element, vec(1, 0, 0x41, 0, 0x0b)...)), "vector of 268435455"},
		"element exprs":     {module(section(Element, vec(1, 5, 0x70)...)), "vector of 268435455"},
		"bodies":            {module(section(Code, vec()...)), "vector of 268435455"},
		"body size":         {module(section(Code, vec(1)...)), "268435455 bytes wanted"},
		"local groups":      {module(section(Code, vec(1, 4)...)), "vector of 268435455"},
		"locals":            {module(section(Code, append(vec(1, 7, 1), 0x7f, 0x0b)...)), "268435455 locals, at most 50000 are allowed"},
		"data segments":     {module(section(Data, vec()...)), "vector of 268435455"},
		"data bytes":        {module(section(Data, vec(1, 1)...)), "268435455 bytes wanted"},
		"many data":         {module(section(Data, many...)), "200000 data segments, at most 100000 are allowed"},
		"many elements":     {module(section(Element, many...)), "200000 element segments, at most 100000 are allowed"},
		"names":             {module(section(Custom, vec(4, 'n', 'a', 'm', 'e', 1, 4)...)), "vector of 268435455"},
		"a name":            {module(section(Custom, vec(4, 'n', 'a', 'm', 'e', 1, 6, 1, 0)...)), "268435455 bytes wanted"},
		"names of locals":   {module(section(Custom, vec(4, 'n', 'a', 'm', 'e', 2, 6, 1, 0)...)), "vector of 268435455"},
		"segment flags":     {module(section(Data, 1, 9)), "data segment with flags 0x9"},
		"element flags":     {module(section(Element, 1, 8)), "element segment with flags 0x8"},
		"constant":          {module(section(Data, 1, 0, 0x6a)), "instruction 0x6a in a constant expression"},
		"vector constant":   {module(section(Data, 1, 0, 0xfd, 1)), "instruction 0xfd 1 in a constant expression"},
		"endless constants": {module(section(Data, 1, 0, 0x41)), "unexpected end"},
	} {
		_, err := Parse(c.module)
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %q", name, err, c.text)
		}
	}
}

// What toolchains write passes.
func TestRealModulesPass(t *testing.T) {
	flat, err := os.ReadFile("../../../../plugins/dist/flat.wasm")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(flat); err != nil {
		t.Error(err)
	}
	ok := module(
		section(Type, 1, 0x60, 1, 0x7f, 1, 0x7e),
		section(Element, 3,
			0, 0x41, 0, 0x0b, 2, 0, 0, // active, indices
			6, 0, 0x23, 0, 0x0b, 0x70, 2, 0xd2, 0, 0x0b, 0xd0, 0x70, 0x0b, // active in a table, expressions
			3, 0, 1, 0), // declared
		section(Code, 1, 4, 1, 3, 0x7f, 0x0b),
		section(Data, 3, 0, 0x42, 0x7f, 0x0b, 1, 'x', 1, 0, 2, 0, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0x0b, 0),
		section(Custom, 4, 'n', 'a', 'm', 'e', 0, 2, 1, 'm', 1, 4, 1, 0, 1, 'f', 2, 6, 1, 0, 1, 0, 1, 'l', 9, 1, 0xff),
	)
	if _, err := Parse(ok); err != nil {
		t.Error(err)
	}
}

// FuzzParse: any bytes give a module or an error that wraps ErrFormat.
func FuzzParse(f *testing.F) {
	f.Add(module(section(Type, 1, 0x60, 0, 0), section(Data, 1, 1, 1, 'x')))
	f.Add(module(section(Element, 1, 4, 0x41, 0, 0x0b, 1, 0xd2, 0, 0x0b)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Parse(b); err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("error does not wrap ErrFormat: %v", err)
		}
	})
}
