// Package sdk embeds the sources of the SDKs for WebAssembly plugins, so that
// a plugin can be begun without a network.
package sdk

import "embed"

// Files holds the Go SDK (go, go/ratest, abi/v1), the C header (c/ra.h) and
// the licence.
//
//go:embed go/*.go go/ratest/*.go abi/v1/*.go c/ra.h LICENSE
var Files embed.FS
