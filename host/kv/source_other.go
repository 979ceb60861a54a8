//go:build !linux

package kv

// HugePages says how the system gives huge pages to [Anonymous] memory.
func HugePages() string { return "never" }

func (anonymous) Map(n int64, _ bool) (*Mapping, error) { return plain(n) }
