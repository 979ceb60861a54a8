package plugin

import (
	"context"
	"fmt"
	"math"
	"strings"
	"unicode"
	"unsafe"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	abi "github.com/retrievalattention/ra/sdk/abi/v1"
)

// args are a host function's arguments; the result goes to args[0]. Guests
// leave garbage in the upper half of an i32.
type args []uint64

func (a args) u32(i int) uint32 { return api.DecodeU32(a[i]) }

func (a args) result(n int) { a[0] = api.EncodeU32(uint32(n)) }

// hostFuncs implement abi.Imports.
var hostFuncs = map[string]func(*instance, args){
	"log":            (*instance).hostLog,
	"fail":           (*instance).hostFail,
	"params_read":    (*instance).hostParamsRead,
	"store_info":     (*instance).hostStoreInfo,
	"indexed_ranges": (*instance).hostIndexedRanges,
	"read_vectors":   (*instance).hostReadVectors,
	"blob_put":       (*instance).hostBlobPut,
	"blob_get":       (*instance).hostBlobGet,
	"build_info":     (*instance).hostBuildInfo,
	"queries_info":   (*instance).hostQueriesInfo,
	"read_queries":   (*instance).hostReadQueries,
	"score":          (*instance).hostScore,
	"score_range":    (*instance).hostScoreRange,
	"topk_range":     (*instance).hostTopKRange,
	"emit":           (*instance).hostEmit,
	"emit_summary":   (*instance).hostEmitSummary,
	"hits_read":      (*instance).hostHitsRead,
	"emit_bias":      (*instance).hostEmitBias,
	"place_info":     (*instance).hostPlaceInfo,
	"state_ranges":   (*instance).hostStateRanges,
	"place":          (*instance).hostPlace,
}

// addHostModule offers the ABI's functions to the runtime's modules.
func addHostModule(ctx context.Context, rt wazero.Runtime) error {
	b := rt.NewHostModuleBuilder(abi.Module)
	for _, f := range abi.Imports() {
		impl := hostFuncs[f.Name]
		fn := func(ctx context.Context, _ api.Module, stack []uint64) {
			in := instanceOf(ctx)
			in.call.host = f.Name
			if in.call.scope&f.Scope == 0 {
				in.trap(ErrCall, "may not be called during %s, only during %s", in.call.export, f.Scope)
			}
			in.spend(callCost)
			impl(in, stack)
		}
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(fn), valueTypes(f.Params), resultTypes(f.Results)).Export(f.Name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return fmt.Errorf("host module %s: %w", abi.Module, err)
	}
	return nil
}

func valueType(t abi.Type) api.ValueType {
	if t == abi.I64 {
		return api.ValueTypeI64
	}
	return api.ValueTypeI32
}

func valueTypes(ps []abi.Param) []api.ValueType {
	ts := make([]api.ValueType, len(ps))
	for i, p := range ps {
		ts[i] = valueType(p.Type)
	}
	return ts
}

func resultTypes(rs []abi.Type) []api.ValueType {
	ts := make([]api.ValueType, len(rs))
	for i, t := range rs {
		ts[i] = valueType(t)
	}
	return ts
}

// bytes returns n bytes of the guest's memory at ptr: a view that is valid
// until the guest runs again. It traps when they are not all there.
func (in *instance) bytes(what string, ptr uint32, n uint64) []byte {
	if n == 0 {
		return nil
	}
	if uint64(ptr)+n > uint64(in.view.Size()) {
		in.trap(ErrCall, "%s: %d bytes at %#x reach beyond the memory of %d bytes", what, n, ptr, in.view.Size())
	}
	b, _ := in.view.Read(ptr, uint32(n))
	return b
}

// words returns n u32 of the guest's memory at ptr. Both of the host's
// architectures are little-endian, as wasm is, so the view is the array.
func (in *instance) words(what string, ptr uint32, n uint64) []uint32 {
	if ptr%4 != 0 {
		in.trap(ErrCall, "%s: pointer %#x is not a multiple of 4", what, ptr)
	}
	if n == 0 {
		return nil
	}
	if n > math.MaxUint32/4 {
		in.trap(ErrCall, "%s: %d elements do not fit a memory", what, n)
	}
	return unsafe.Slice((*uint32)(unsafe.Pointer(&in.bytes(what, ptr, 4*n)[0])), n)
}

// floats is words for f32.
func (in *instance) floats(what string, ptr uint32, n uint64) []float32 {
	w := in.words(what, ptr, n)
	if len(w) == 0 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&w[0])), len(w))
}

// put copies as much of data as fits buf and returns the length of data.
func (in *instance) put(a args, buf, limit uint32, data []byte) {
	n := min(uint64(limit), uint64(len(data)))
	copy(in.bytes("buf", buf, n), data)
	a.result(len(data))
}

// putWords is put for a structure of u32 fields.
func (in *instance) putWords(a args, buf, limit uint32, fields []uint32) {
	in.put(a, buf, limit, unsafe.Slice((*byte)(unsafe.Pointer(&fields[0])), 4*len(fields)))
}

func (in *instance) hostFail(a args) {
	n := min(a.u32(1), abi.MaxFailText)
	in.call.failText = printable(string(in.bytes("text", a.u32(0), uint64(n))))
}

func (in *instance) hostParamsRead(a args) {
	in.put(a, a.u32(0), a.u32(1), []byte(in.p.params))
}

// printable makes one line of a guest's text.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return strings.TrimSpace(s)
}
