package main

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"strings"
)

// group is a block of constants of the description and its comment.
type group struct {
	doc    string
	consts []namedConst
}

type namedConst struct {
	name string // as in Go
	doc  string
	text string // value of a string
	num  int64  // value of a number
}

// readConstants evaluates the constants of a Go file that imports nothing.
func readConstants(path string) ([]group, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	pkg, err := new(types.Config).Check("abi", fset, []*ast.File{file}, nil)
	if err != nil {
		return nil, err
	}
	var groups []group
	for _, d := range file.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok || decl.Tok != token.CONST {
			return nil, fmt.Errorf("%s: only constants belong here", fset.Position(d.Pos()))
		}
		g := group{doc: oneLine(decl.Doc)}
		for _, s := range decl.Specs {
			spec := s.(*ast.ValueSpec)
			for _, id := range spec.Names {
				c := namedConst{name: id.Name, doc: about(id.Name, oneLine(spec.Doc)+oneLine(spec.Comment))}
				switch v := pkg.Scope().Lookup(id.Name).(*types.Const).Val(); v.Kind() {
				case constant.String:
					c.text = constant.StringVal(v)
				case constant.Int:
					c.num, _ = constant.Int64Val(v)
				default:
					return nil, fmt.Errorf("%s: %s is neither a number nor a text", fset.Position(id.Pos()), id.Name)
				}
				g.consts = append(g.consts, c)
			}
		}
		groups = append(groups, g)
	}
	return groups, nil
}

func oneLine(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }

// about strips the Go name with which a comment begins.
func about(name, doc string) string {
	rest, ok := strings.CutPrefix(doc, name+" ")
	if !ok {
		return doc
	}
	return strings.TrimSuffix(strings.TrimPrefix(rest, "is "), ".")
}

// screaming turns QueryOfCall into QUERY_OF_CALL.
func screaming(name string) string {
	var b strings.Builder
	for i, r := range name {
		upper := r >= 'A' && r <= 'Z'
		if upper && i > 0 && (!isUpper(name, i-1) || i+1 < len(name) && !isUpper(name, i+1)) {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}

func isUpper(s string, i int) bool { return s[i] >= 'A' && s[i] <= 'Z' }
