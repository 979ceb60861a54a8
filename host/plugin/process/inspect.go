package process

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/plugin"
	contract "github.com/retrievalattention/ra/sdk/process/v1"
)

// Inspect starts a plugin, with memory of its own for nothing, asks it what it
// is, and ends it.
func Inspect(ctx context.Context, o Options) (_ *plugin.Inspection, err error) {
	if o.Memory, err = kv.NewSharedAllocator(0); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.Memory.Close()) }()
	info, err := os.Stat(o.Path)
	if err != nil {
		return nil, &plugin.Error{Plugin: o.Name, Operation: "load", Layer: -1, Step: -1, Err: err}
	}
	start := time.Now()
	p, err := Load(ctx, o)
	if err != nil {
		return nil, err
	}
	took := time.Since(start)
	return &plugin.Inspection{
		Description: *p.desc, Digest: p.guard.Digest, ABI: contract.CookieValue, Bytes: int(info.Size()),
		InstanceSeconds: took.Seconds(),
	}, p.Close()
}
