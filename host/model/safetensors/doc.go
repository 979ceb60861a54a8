// Package safetensors reads and writes the safetensors file format, single files and sharded sets.
//
// A file is
//
//	8 bytes            length N of the header, little-endian
//	N bytes            a JSON object: tensor name -> {dtype, shape, data_offsets}, and "__metadata__"
//	the rest           the tensors' bytes, row-major, little-endian, without gap or overlap
//
// A sharded set is several such files and model.safetensors.index.json, whose weight_map says
// which file holds which tensor.
//
// Files come from strangers, so that everything in a header is checked before a tensor is handed
// out: lengths, offsets, sizes (without integer overflow), duplicate names, gaps and overlaps. A
// header may mention any dtype; only F32, F16 and BF16 tensors can be taken from a set. Data is
// mapped, not read, where the operating system allows it, and it need not be aligned: Tensor.U16
// and Tensor.F32 give a view where they can and a copy where they must.
package safetensors
