// Package dist embeds the built-in plugins as the standard Go toolchain
// compiled them; plugins/build.sh makes them and SHA256SUMS.
package dist

import "embed"

// Files holds NAME.wasm for every built-in plugin, and SHA256SUMS.
//
//go:embed *.wasm SHA256SUMS
var Files embed.FS
