package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/plugin"
	"github.com/retrievalattention/ra/host/retrieval"
	contract "github.com/retrievalattention/ra/sdk/process/v1"
)

// Build lets the plugin build the index of one layer, all KV heads in one
// call. When it fails and the plugin falls back, Build returns nil and the
// searches of that layer are answered exactly, until a Build succeeds or a new
// process has built the index again.
func (p *Plugin) Build(ctx context.Context, b *retrieval.Build) error {
	err := p.build(ctx, b)
	if p.waits(err) {
		return nil
	}
	return p.guard.Indexed(ctx, b.View, b.Layer, "build", err)
}

// waits reports whether err only means that the index will be there later.
func (p *Plugin) waits(err error) bool {
	return errors.Is(err, plugin.ErrUnavailable) && p.opts.OnFailure == plugin.Fallback
}

func (p *Plugin) build(ctx context.Context, b *retrieval.Build) (err error) {
	s, err := sequence(b.View, b.Layer)
	if err != nil {
		return err
	}
	i := p.indexes.build(b.View, b.Layer, b.Heads, s)
	r, err := p.running()
	if err != nil {
		p.indexes.wait(i)
		return err
	}
	defer func() { p.settle(i, r, 0, err) }()
	request := &contract.BuildRequest{Layer: uint32(b.Layer), Heads: uint32(b.Heads), Sequence: s}
	if p.UsesPrefillQueries() && len(b.Queries) > 0 {
		offset, done, err := p.shareQueries(b.Queries)
		if err != nil {
			return err
		}
		defer done()
		request.Queries = &offset
	}
	if err := p.callBuild(ctx, r, request); err != nil {
		return err
	}
	if p.does(contract.FeatureExport) {
		if i.saved, err = p.export(ctx, r, i); err != nil {
			return err
		}
	}
	return nil
}

// shareQueries returns where in their share the queries lie: those of the
// engine do, others are copied there until done.
func (p *Plugin) shareQueries(queries []float32) (offset uint64, done func(), err error) {
	_, _, arena := p.opts.Memory.Shared()
	if at, ok := arena.Offset(unsafe.Pointer(unsafe.SliceData(queries))); ok {
		return uint64(at), func() {}, nil
	}
	r, err := p.opts.Memory.Alloc(4*int64(len(queries)), kv.Queries)
	if err != nil {
		return 0, nil, err
	}
	copy(r.Bytes(), littleEndian(queries))
	_, at := r.File()
	return uint64(at), func() { _ = r.Release() }, nil // nothing is lost if it stays mapped
}

func (p *Plugin) callBuild(ctx context.Context, r *process, request *contract.BuildRequest) error {
	limited, cancel := context.WithTimeout(ctx, p.opts.Limits.BuildTimeout)
	defer cancel()
	if _, err := r.rpc.Build(limited, request); err != nil {
		return p.callError(ctx, r, "build", err)
	}
	return nil
}

// Append tells the plugin of tokens that were indexed since. A failure counts
// as one of Build does.
func (p *Plugin) Append(ctx context.Context, view *kv.View, layer int, rg kv.Range) error {
	err := p.append(ctx, view, layer, rg)
	if p.waits(err) {
		return nil
	}
	return p.guard.Indexed(ctx, view, layer, "append", err)
}

func (p *Plugin) append(ctx context.Context, view *kv.View, layer int, rg kv.Range) error {
	s, err := sequence(view, layer)
	if err != nil {
		return err
	}
	number := int64(0)
	r, err := p.running()
	if err == nil && p.guard.HasIndex(view, layer) {
		number = r.number
	}
	i, ready := p.indexes.append(view, layer, rg, s, number)
	if err != nil || !ready {
		return err
	}
	_, tail, _, _ := p.indexes.snapshot(i)
	err = p.callAppend(ctx, r, layer, s, []kv.Range{rg})
	p.settle(i, r, len(tail), err)
	return err
}

// settle ends a build or append: an index that the process could not take is
// left to the next process, and so is one that the process took with it.
func (p *Plugin) settle(i *index, r *process, sent int, err error) {
	switch {
	case err == nil:
		p.indexes.done(i, r.number, sent)
	case ended(err):
		p.indexes.wait(i)
	default:
		p.indexes.fail(i, r.number)
	}
}

func (p *Plugin) callAppend(ctx context.Context, r *process, layer int, s *contract.Sequence, ranges []kv.Range) error {
	request := &contract.AppendRequest{Layer: uint32(layer), Sequence: s}
	for _, rg := range ranges {
		request.Ranges = append(request.Ranges, wireRange(rg))
	}
	limited, cancel := context.WithTimeout(ctx, p.opts.Limits.SearchTimeout)
	defer cancel()
	if _, err := r.rpc.Append(limited, request); err != nil {
		return p.callError(ctx, r, "append", err)
	}
	return nil
}

// export saves the plugin's index in a file without a name.
func (p *Plugin) export(ctx context.Context, r *process, i *index) (_ *os.File, err error) {
	f, err := os.CreateTemp("", "ra-index-*")
	if err != nil {
		return nil, fmt.Errorf("save the index: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := os.Remove(f.Name()); err != nil {
		return nil, fmt.Errorf("save the index: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, p.opts.Limits.BuildTimeout)
	defer cancel()
	stream, err := r.rpc.Export(limited, &contract.ExportRequest{View: i.id, Layer: uint32(i.layer)})
	for err == nil {
		var chunk *contract.Chunk
		if chunk, err = stream.Recv(); err == nil {
			if _, err := f.Write(chunk.Data); err != nil {
				return nil, fmt.Errorf("save the index: %w", err)
			}
		}
	}
	if err != io.EOF {
		return nil, p.callError(ctx, r, "export", err)
	}
	return f, nil
}

// load gives the process what an earlier one exported.
func (p *Plugin) load(ctx context.Context, r *process, i *index, s *contract.Sequence) error {
	if _, err := i.saved.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read the saved index: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, p.opts.Limits.BuildTimeout)
	defer cancel()
	stream, err := r.rpc.Import(limited)
	if err != nil {
		return p.callError(ctx, r, "import", err)
	}
	request := &contract.ImportRequest{Layer: uint32(i.layer), Heads: uint32(i.heads), Sequence: s}
	for buf := make([]byte, contract.MaxChunk); ; {
		n, err := io.ReadFull(i.saved, buf)
		request.Data = buf[:n]
		if n > 0 || request.Sequence != nil {
			if sendErr := stream.Send(request); sendErr != nil {
				break // CloseAndRecv says why
			}
		}
		if err != nil {
			break // the end
		}
		request = &contract.ImportRequest{}
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		return p.callError(ctx, r, "import", err)
	}
	return nil
}
