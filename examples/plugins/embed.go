// Package plugins embeds example plugins: `ra plugin new` begins a plugin as a
// copy of one.
package plugins

import "embed"

// Files holds a folder for each language and kind, such as go-sample.
//
//go:embed go-sample go-policy c-sample c-policy go-process-sample python-sample/README.md python-sample/plugin.py
var Files embed.FS
