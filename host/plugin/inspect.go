package plugin

import (
	"context"
	"slices"
	"time"

	abi "github.com/retrievalattention/ra/sdk/abi/v1"
)

// Inspection is what can be told of a module without running a search.
type Inspection struct {
	Description
	Digest  string   `json:"digest"`
	ABI     string   `json:"abi"`
	Bytes   int      `json:"bytes"`   // of the module
	Imports []string `json:"imports"` // "module.name", in order
	Exports []string `json:"exports"` // of the ABI
	// CompileSeconds is without a cache, fuel included; InstanceSeconds is one
	// more instance, configured; MemoryBytes its linear memory.
	CompileSeconds  float64 `json:"compile_seconds"`
	InstanceSeconds float64 `json:"instance_seconds"`
	MemoryBytes     int64   `json:"memory_bytes"`
}

// Inspect loads a plugin of any kind, measures it and closes it. Errors are
// those of [Load].
func Inspect(ctx context.Context, o Options) (*Inspection, error) {
	o.CacheDir = cacheOff
	start := time.Now()
	p, err := loadKind(ctx, o, "")
	if err != nil {
		return nil, err
	}
	defer p.Close()
	i := &Inspection{Description: *p.desc, Digest: p.digest, ABI: abi.Marker, Bytes: p.size, CompileSeconds: time.Since(start).Seconds()}
	for _, f := range p.compiled.ImportedFunctions() {
		module, name, _ := f.Import()
		i.Imports = append(i.Imports, module+"."+name)
	}
	slices.Sort(i.Imports)
	before := p.memory.Load()
	start = time.Now()
	in, err := p.instantiate(ctx)
	if err != nil {
		return nil, p.errorOf("load", -1, -1, err)
	}
	defer in.close()
	i.InstanceSeconds = time.Since(start).Seconds()
	i.MemoryBytes = p.memory.Load() - before
	for _, e := range abi.Exports() {
		if in.exports[e.Name] != nil {
			i.Exports = append(i.Exports, e.Name)
		}
	}
	return i, nil
}
