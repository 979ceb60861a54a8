package abi

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"
)

// TestDocumentDescribesFunctionsAndFields: every import has a paragraph of
// its own, which names its parameters.
func TestDocumentDescribesFunctionsAndFields(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range Imports() {
		var names []string
		for _, p := range f.Params {
			names = append(names, p.Name)
		}
		if head := "\n`" + f.Name + "(" + strings.Join(names, ", ") + ")`"; !strings.Contains(string(text), head) {
			t.Errorf("README.md lacks a paragraph that begins with %s", head)
		}
	}
}

// TestGoSDKExports reads the SDK's directives: what it exports is the ABI,
// neither more nor less. Its imports are generated.
func TestGoSDKExports(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../go/host_wasm.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, d := range file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Doc == nil {
			continue
		}
		for _, c := range fn.Doc.List {
			if fields := strings.Fields(c.Text); fields[0] == "//go:wasmexport" {
				got[fields[1]] = goSignature(fn.Type)
			}
		}
	}
	for _, e := range Exports() {
		if got[e.Name] != e.Signature() {
			t.Errorf("the SDK exports %s as %q, want %s", e.Name, got[e.Name], e.Signature())
		}
		delete(got, e.Name)
	}
	for name := range got {
		t.Errorf("the SDK exports %s, which is not in the ABI", name)
	}
}

// goSignature is the WebAssembly signature of a directive's function.
func goSignature(f *ast.FuncType) string {
	types := func(l *ast.FieldList) (ts []Type) {
		if l == nil {
			return nil
		}
		for _, field := range l.List {
			t := I32
			if id, ok := field.Type.(*ast.Ident); ok && strings.HasSuffix(id.Name, "64") {
				t = I64
			}
			for range max(1, len(field.Names)) {
				ts = append(ts, t)
			}
		}
		return ts
	}
	var sig Func
	for _, t := range types(f.Params) {
		sig.Params = append(sig.Params, Param{Type: t})
	}
	sig.Results = types(f.Results)
	return sig.Signature()
}
