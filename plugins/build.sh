#!/bin/sh
# Compiles the built-in plugins into plugins/dist, byte for byte reproducible:
# the bytes depend on the Go version, so the go command fetches the one that
# the file go-version pins where it is another.
#   [GO=go] plugins/build.sh [OUTPUT-DIRECTORY]
set -eu
cd "$(dirname "$0")"
GOTOOLCHAIN=$(cat go-version)
export GOTOOLCHAIN
out=$(mkdir -p "${1:-dist}" && cd "${1:-dist}" && pwd)
for dir in search/*/ policy/*/; do
	name=$(basename "$dir")
	GOOS=wasip1 GOARCH=wasm GOWASM= GOEXPERIMENT= GOFLAGS= GOWORK=off CGO_ENABLED=0 \
		"${GO:-go}" build -buildmode=c-shared -trimpath -buildvcs=false \
		-ldflags='-s -w -buildid=' -o "$out/$name.wasm" "./$dir"
done
cd "$out"
if command -v sha256sum >/dev/null; then sha256sum -- *.wasm; else shasum -a 256 -- *.wasm; fi >SHA256SUMS.tmp
mv SHA256SUMS.tmp SHA256SUMS
