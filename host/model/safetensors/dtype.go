package safetensors

// DType is a tensor's element type, spelled as in the header.
type DType string

// The element types that a Set hands out.
const (
	F32  DType = "F32"  // IEEE 754 binary32
	F16  DType = "F16"  // IEEE 754 binary16
	BF16 DType = "BF16" // the upper half of a binary32
)

// dtypeBits has every element type of the format that we know, so that a header which mentions
// one can be checked in full even if nobody asks for that tensor.
var dtypeBits = map[DType]uint64{
	"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
	"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
	"U16": 16, "I16": 16, F16: 16, BF16: 16,
	"U32": 32, "I32": 32, F32: 32,
	"U64": 64, "I64": 64, "F64": 64, "C64": 64,
}

// Size is the number of bytes of one element: 4 for F32, 2 for F16 and BF16, 0 for any other type.
func (d DType) Size() int {
	switch d {
	case F32:
		return 4
	case F16, BF16:
		return 2
	}
	return 0
}

// supported says whether tensors of this type are handed out.
func (d DType) supported() bool { return d.Size() != 0 }
