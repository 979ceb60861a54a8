// Command gen writes what follows from the description of the plugin ABI
// (package abi): the import declarations of the Go SDK, the C header, the
// Python constants and the tables of the ABI's document.
//
//	go run ./sdk/abi/gen          # from the repository's root; `make abi`
//
// A test compares the committed files with what it would write.
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
)

// output is a generated file, named from the repository's root.
type output struct {
	path string
	data []byte
}

// outputs generates everything; root is the repository's folder.
func outputs(root string) ([]output, error) {
	consts, err := readConstants(filepath.Join(root, "sdk/abi/v1/constants.go"))
	if err != nil {
		return nil, err
	}
	document := "sdk/abi/v1/README.md"
	text, err := os.ReadFile(filepath.Join(root, document))
	if err != nil {
		return nil, err
	}
	tables, err := fillTables(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", document, err)
	}
	imports, err := goImports()
	if err != nil {
		return nil, err
	}
	return []output{
		{document, []byte(tables)},
		{"sdk/go/imports_wasm.go", imports},
		{"sdk/c/ra.h", []byte(cHeader(consts))},
		{"sdk/python/ra_plugin/abi.py", []byte(pythonConstants(consts))},
	}, nil
}

func main() {
	log.SetFlags(0)
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	files, err := outputs(root)
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range files {
		path := filepath.Join(root, f.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			log.Fatal(err)
		}
		if err := os.WriteFile(path, f.data, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}
