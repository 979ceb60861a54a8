package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestLock(t *testing.T) {
	file := filepath.Join(t.TempDir(), LockName)
	if l, err := ReadLock(file); l != nil || err != nil {
		t.Fatalf("without a file: %v, %v", l, err)
	}
	if d, err := (*Lock)(nil).Digest("x"); d != "" || err != nil {
		t.Errorf("no lock: %q, %v", d, err)
	}
	want := &Lock{Version: Version, Plugins: []LockedPlugin{{"flat", strings.Repeat("0a", 32)}, {"min\"e", strings.Repeat("b", 64)}}}
	if err := want.Write(file); err != nil {
		t.Fatal(err)
	}
	got, err := ReadLock(file)
	if err != nil {
		t.Fatal(err)
	}
	want.File = file
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if d, err := got.Digest("min\"e"); d != want.Plugins[1].SHA256 || err != nil {
		t.Errorf("%q, %v", d, err)
	}
	if _, err := got.Digest("other"); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), `has no entry for the plugin "other"; run 'ra plugin lock'`) {
		t.Error(err)
	}
	if files, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "*")); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
	for text, reason := range map[string]string{
		"version = ":           "toml",
		"":                     "version 0 is not one that this program reads",
		"version = 1\nx = 2\n": `unknown key "x"`,
		"version = 1\n[[plugin]]\nname = \"a\"\nsha256 = \"12\"\n":                                                                                                      "entry 1 is no name with a sha256",
		"version = 1\n[[plugin]]\nname = \"a\"\nsha256 = \"" + strings.Repeat("g", 64) + "\"\n":                                                                         "entry 1 is no name with a sha256",
		"version = 1\n[[plugin]]\nname = \"a\"\nsha256 = \"" + strings.Repeat("1", 64) + "\"\n[[plugin]]\nname = \"a\"\nsha256 = \"" + strings.Repeat("1", 64) + "\"\n": "a is listed twice",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadLock(file); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), reason) || !strings.Contains(err.Error(), "run 'ra plugin lock' to write it anew") {
			t.Errorf("%q: %v, want %s", text, err, reason)
		}
	}
}
