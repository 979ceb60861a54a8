package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// LockName is the name of the lock file, which lies beside the configuration.
const LockName = "ra.lock"

// Lock pins plugins by the sha256 of their files. One digest holds for all
// platforms: a module is the same everywhere.
type Lock struct {
	File    string         `toml:"-"` // where it was read
	Version int            `toml:"version"`
	Plugins []LockedPlugin `toml:"plugin"`
}

// LockedPlugin is one entry.
type LockedPlugin struct {
	Name   string `toml:"name"`
	SHA256 string `toml:"sha256"` // 64 hexadecimal digits
}

// LockFile returns the place of the lock file that belongs to r.
func (r *Resolved) LockFile() string { return relativeTo(r.File, LockName) }

// ReadLock reads a lock file. Without one it returns nil and no error.
func ReadLock(file string) (*Lock, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the lock file: %w", err)
	}
	l := &Lock{File: file}
	meta, err := toml.Decode(string(data), l)
	bad := func(format string, args ...any) (*Lock, error) {
		return nil, fmt.Errorf("%w: %s: %s; run 'ra plugin lock' to write it anew", ErrInvalid, file, fmt.Sprintf(format, args...))
	}
	if err != nil {
		return bad("%v", err)
	}
	if keys := meta.Undecoded(); len(keys) > 0 {
		return bad("unknown key %q", keys[0])
	}
	if l.Version != Version {
		return bad("version %d is not one that this program reads", l.Version)
	}
	for i, p := range l.Plugins {
		switch {
		case p.Name == "" || len(p.SHA256) != 64 || strings.Trim(p.SHA256, "0123456789abcdef") != "":
			return bad("entry %d is no name with a sha256 of 64 hexadecimal digits", i+1)
		case slices.ContainsFunc(l.Plugins[:i], func(q LockedPlugin) bool { return q.Name == p.Name }):
			return bad("%s is listed twice", p.Name)
		}
	}
	return l, nil
}

// Digest returns the digest of a plugin. A nil lock pins nothing; one that
// lacks the plugin is an error.
func (l *Lock) Digest(name string) (string, error) {
	if l == nil {
		return "", nil
	}
	for _, p := range l.Plugins {
		if p.Name == name {
			return p.SHA256, nil
		}
	}
	return "", fmt.Errorf("%w: %s has no entry for the plugin %q; run 'ra plugin lock' if it is to be used", ErrInvalid, l.File, name)
}

// Write writes the lock file, to a temporary name first.
func (l *Lock) Write(file string) error {
	var b strings.Builder
	b.WriteString("# Written by `ra plugin lock`: the plugins that may run beside this configuration.\n")
	fmt.Fprintf(&b, "version = %d\n", Version)
	for _, p := range l.Plugins {
		fmt.Fprintf(&b, "\n[[plugin]]\nname = %s\nsha256 = %q\n", tomlValue(p.Name), p.SHA256)
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), LockName+".*")
	if err != nil {
		return fmt.Errorf("write the lock file: %w", err)
	}
	_, err = tmp.WriteString(b.String())
	if err := errors.Join(err, tmp.Close()); err != nil {
		return errors.Join(fmt.Errorf("write the lock file: %w", err), os.Remove(tmp.Name()))
	}
	if err := os.Chmod(tmp.Name(), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}
