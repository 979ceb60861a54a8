package abi

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strings"
	"testing"
)

// documented reads the tables of README.md: name to signature and last column.
func documented(t *testing.T) map[string][2]string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][2]string{}
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| `(\\(func .*?\\))` \\| (.*) \\|$")
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		rows[m[1]] = [2]string{m[2], m[3]}
	}
	return rows
}

func TestDocumentMatchesConstants(t *testing.T) {
	rows := documented(t)
	for _, f := range Exports() {
		if got := rows[f.Name][0]; got != f.WAT() {
			t.Errorf("README.md has %q as %s, want %s", f.Name, got, f.WAT())
		}
		delete(rows, f.Name)
	}
	for _, f := range Imports() {
		if got := rows[f.Name]; got != [2]string{f.WAT(), f.Scope.String()} {
			t.Errorf("README.md has %q as %q, want %s, scope %s", f.Name, got, f.WAT(), f.Scope)
		}
		delete(rows, f.Name)
	}
	for name := range rows {
		t.Errorf("README.md has %q, which is not in the ABI", name)
	}
}

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

// TestGoSDKMatchesConstants reads the SDK's directives: what it imports and
// exports is the ABI, neither more nor less.
func TestGoSDKMatchesConstants(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../go/host_wasm.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	imports, exports := map[string]string{}, map[string]string{}
	for _, d := range file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Doc == nil {
			continue
		}
		for _, c := range fn.Doc.List {
			switch fields := strings.Fields(c.Text); fields[0] {
			case "//go:wasmimport":
				if fields[1] != Module {
					t.Errorf("import from %q", fields[1])
				}
				imports[fields[2]] = goSignature(fn.Type)
			case "//go:wasmexport":
				exports[fields[1]] = goSignature(fn.Type)
			}
		}
	}
	same := func(what string, got map[string]string, want []Func) {
		for _, f := range want {
			if got[f.Name] != f.Signature() {
				t.Errorf("the SDK %s %s as %q, want %s", what, f.Name, got[f.Name], f.Signature())
			}
			delete(got, f.Name)
		}
		for name := range got {
			t.Errorf("the SDK %s %s, which is not in the ABI", what, name)
		}
	}
	same("imports", imports, Imports())
	same("exports", exports, Exports())
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
