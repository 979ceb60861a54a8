// Package sdk embeds the sources of the SDKs, so that a plugin can be begun
// without a network.
package sdk

import "embed"

// Files holds the Go SDK (go, go/ratest, abi/v1), the C header (c/ra.h), the
// SDKs for processes in Go (process, process/v1) and Python (python/ra_plugin
// and its project file), and the licence. modules has the versions (require.txt)
// and checksums (sums.txt) of the Go modules that process imports.
//
//go:embed go/*.go go/ratest/*.go abi/v1/*.go c/ra.h process/*.go process/v1/*.go modules/*.txt python/pyproject.toml python/ra_plugin/*.py python/ra_plugin/py.typed LICENSE
var Files embed.FS
