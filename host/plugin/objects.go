package plugin

import (
	"strconv"

	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval/blob"
	abi "github.com/retrievalattention/ra/sdk/abi/v1"
)

// object names what a slot of a KV head holds within its view.
func (in *instance) object(kind string, kvHead int, slot uint32) kv.AttachmentKey {
	if slot >= abi.MaxSlots {
		in.trap(ErrCall, "slot %d, slots go from 0 to %d", slot, abi.MaxSlots-1)
	}
	return kv.AttachmentKey{Owner: in.p.desc.Name, Layer: in.call.layer, KVHead: kvHead, Name: kind + strconv.Itoa(int(slot))}
}

// blobWork is what a byte of a blob counts for.
const blobWork = 8

func (in *instance) hostBlobPut(a args) {
	data := in.bytes("data", a.u32(1), uint64(a.u32(2)))
	key := in.object("blob", in.call.head, a.u32(0))
	in.spend(int64(len(data)) / blobWork)
	b, err := blob.New(in.p.opts.Memory, data)
	if err == nil {
		err = in.call.views[0].Attach(key, b)
	}
	if err != nil {
		in.trap(ErrMemory, "%v", err)
	}
}

func (in *instance) hostBlobGet(a args) {
	view, head := in.sequence(a.u32(0)), in.kvHead(a.u32(1))
	b, ok := view.Attachment(in.object("blob", head, a.u32(2))).(*blob.Blob)
	if !ok {
		a.result(abi.NoBlob)
		return
	}
	data := b.Data()
	rest := data[min(uint64(a.u32(3)), uint64(len(data))):]
	n := min(len(rest), int(a.u32(5)))
	in.spend(int64(n) / blobWork)
	copy(in.bytes("buf", a.u32(4), uint64(n)), rest)
	a.result(len(data))
}
