package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestGeneratedFilesAreCurrent(t *testing.T) {
	const root = "../../.."
	files, err := outputs(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		got, err := os.ReadFile(filepath.Join(root, f.path))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, f.data) {
			t.Errorf("%s is not what the description says; run `make abi`", f.path)
		}
	}
}

func TestScreaming(t *testing.T) {
	for name, want := range map[string]string{
		"Marker": "MARKER", "QueryOfCall": "QUERY_OF_CALL", "StoreKVHeads": "STORE_KV_HEADS", "QueriesTopK": "QUERIES_TOP_K", "MaxRows": "MAX_ROWS",
	} {
		if got := screaming(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
