package main

import "fmt"

// Vector registers are ints. Mnemonics and encodings are those of the Arm
// Architecture Reference Manual (DDI 0487), section C7.

// three are the instructions with three vectors of one arrangement.
var three = map[string]uint32{
	"fmla 4s":  0x4e20cc00,
	"fmls 4s":  0x4ea0cc00,
	"fadd 4s":  0x4e20d400,
	"fsub 4s":  0x4ea0d400,
	"fmul 4s":  0x6e20dc00,
	"fdiv 4s":  0x6e20fc00,
	"faddp 4s": 0x6e20d400, // neighbours in n, then neighbours in m
	"fmax 4s":  0x4e20f400,
	"fmin 4s":  0x4ea0f400, // NaN when either is
	"fcmge 4s": 0x6e20e400, // ones where n >= m
	"fcmgt 4s": 0x6ea0e400,
	"fmla 2d":  0x4e60cc00,
	"fadd 2d":  0x4e60d400,
	"add 4s":   0x4ea08400,
	"sub 4s":   0x6ea08400,
	"umaxp 4s": 0x6ea0a400,
	"orr 16b":  0x4ea01c00,
	"bic 16b":  0x4e601c00, // n and not m
	"bit 16b":  0x6ea01c00, // d becomes n where m is ones
	"and 16b":  0x4e201c00,
	"addp 8h":  0x4e60bc00,
	"zip1 8h":  0x4e403800, // n0 m0 n1 m1 ..., from the first half of each
	"zip2 8h":  0x4e407800, // from the second half
	"zip1 4s":  0x4e803800,
	"zip2 4s":  0x4e807800,
	"zip1 2d":  0x4ec03800,
	"zip2 2d":  0x4ec07800,
	"uzp1 4s":  0x4e801800, // n0 n2 ... m0 m2 ...
	"uzp2 4s":  0x4e805800, // n1 n3 ... m1 m3 ...
	"uzp1 8h":  0x4e401800,
	"uzp1 16b": 0x4e001800,
}

// v3 writes a three-vector instruction: d = n op m.
func (a *asm) v3(name, arrangement string, d, n, m int) {
	a.word(find(three, name+" "+arrangement)|uint32(m<<16|n<<5|d),
		"%s v%d.%[3]s, v%[4]d.%[3]s, v%[5]d.%[3]s", name, d, arrangement, n, m)
}

// The four lanes of f32 that most instructions work on.
func (a *asm) fmla(d, n, m int) { a.v3("fmla", "4s", d, n, m) }
func (a *asm) fmls(d, n, m int) { a.v3("fmls", "4s", d, n, m) }
func (a *asm) fadd(d, n, m int) { a.v3("fadd", "4s", d, n, m) }
func (a *asm) fmul(d, n, m int) { a.v3("fmul", "4s", d, n, m) }

// two are the instructions with two vectors, destination first.
var two = map[string]uint32{
	"fcvtl 4s 4h":  0x0e217800,
	"fcvtl2 4s 8h": 0x4e217800,
	"fcvtl 2d 2s":  0x0e617800,
	"fcvtl2 2d 4s": 0x4e617800,
	"fneg 4s 4s":   0x6ea0f800,
	"frintn 4s 4s": 0x4e218800, // to the nearest integer, ties to even
	"fcvtzs 4s 4s": 0x4ea1b800, // to int32; NaN becomes 0
	"frintm 4s 4s": 0x4e219800, // down
	"scvtf 4s 4s":  0x4e21d800, // from int32
	"sadalp 4s 8h": 0x4e606800, // adds neighbours to a lane
	"xtn 8b 8h":    0x0e212800,
	"xtn 4h 4s":    0x0e612800,
	"mov 16b 16b":  0x4ea01c00,
}

// v2 writes a two-vector instruction: d of arrangement td from n of tn.
func (a *asm) v2(name string, d int, td string, n int, tn string) {
	code := find(two, name+" "+td+" "+tn) | uint32(n<<5|d)
	if name == "mov" { // orr of one vector with itself
		code |= uint32(n << 16)
	}
	a.word(code, "%s v%d.%s, v%d.%s", name, d, td, n, tn)
}

// long are the instructions on bytes with 16-bit results, from the first half
// of each operand, and with a 2 behind the name from the second.
var long = map[string]uint32{"smull": 0x0e20c000, "smlal": 0x0e208000}

func (a *asm) longs(name string, d, n, m int) {
	a.word(find(long, name)|uint32(m<<16|n<<5|d), "%s v%d.8h, v%d.8b, v%d.8b", name, d, n, m)
}

func (a *asm) longs2(name string, d, n, m int) {
	a.word(find(long, name)|uint32(1<<30|m<<16|n<<5|d), "%s2 v%d.8h, v%d.16b, v%d.16b", name, d, n, m)
}

func (a *asm) mov(d, n int) { a.v2("mov", d, "16b", n, "16b") }

// element are the instructions whose last operand is one lane of f32.
var element = map[string]uint32{
	"fmla": 0x4f801000,
	"fmls": 0x4f805000,
	"fmul": 0x4f809000,
}

// lane writes d = n op (lane i of m) on four lanes of f32.
func (a *asm) lane(name string, d, n, m, i int) {
	a.word(find(element, name)|uint32(i&1<<21|i>>1<<11|m<<16|n<<5|d),
		"%s v%d.4s, v%d.4s, v%d.s[%d]", name, d, n, m, i)
}

// sdot adds to each lane of d the inner product of its four bytes in n with
// the four bytes of lane i of m. It is the one instruction here that ARMv8.0
// lacks.
func (a *asm) sdot(d, n, m, i int) {
	a.word(0x4f80e000|uint32(i&1<<21|i>>1<<11|m<<16|n<<5|d), "sdot v%d.4s, v%d.16b, v%d.4b[%d]", d, n, m, i)
}

// dup fills d with lane i of n.
func (a *asm) dup(d, n, i int) {
	a.word(0x4e040400|uint32(i<<19|n<<5|d), "dup v%d.4s, v%d.s[%d]", d, n, i)
}

func (a *asm) zero(d int) { a.word(0x6f00e400|uint32(d), "movi v%d.2d, #0", d) }

// fill sets all bytes of d.
func (a *asm) fill(d, b int) {
	a.word(0x4f00e400|uint32(b>>5<<16|b&31<<5|d), "movi v%d.16b, #%d", d, b)
}

// swap writes n with its halves exchanged.
func (a *asm) swap(d, n int) {
	a.word(0x6e004000|uint32(n<<16|8<<11|n<<5|d), "ext v%d.16b, v%d.16b, v%d.16b, #8", d, n, n)
}

// Shifts of bytes: left, and right without the sign.
func (a *asm) shlBytes(d, n, by int) {
	a.word(0x4f005400|uint32((8+by)<<16|n<<5|d), "shl v%d.16b, v%d.16b, #%d", d, n, by)
}

func (a *asm) ushrBytes(d, n, by int) {
	a.word(0x6f000400|uint32((16-by)<<16|n<<5|d), "ushr v%d.16b, v%d.16b, #%d", d, n, by)
}

// Shifts of four lanes: left, and right with the sign.
func (a *asm) shl(d, n, by int) {
	a.word(0x4f005400|uint32((32+by)<<16|n<<5|d), "shl v%d.4s, v%d.4s, #%d", d, n, by)
}

func (a *asm) sshr(d, n, by int) {
	a.word(0x4f000400|uint32((64-by)<<16|n<<5|d), "sshr v%d.4s, v%d.4s, #%d", d, n, by)
}

// Reductions to the first lane; the others become zero.
func (a *asm) fmaxAcross(d, n int) {
	a.word(0x6e30f800|uint32(n<<5|d), "fmaxv s%d, v%d.4s", d, n)
}

func (a *asm) faddPair(d, n int) {
	a.word(0x7e30d800|uint32(n<<5|d), "faddp s%d, v%d.2s", d, n)
}

func (a *asm) faddPairF64(d, n int) {
	a.word(0x7e70d800|uint32(n<<5|d), "faddp d%d, v%d.2d", d, n)
}

func (a *asm) addAcross(d, n int) {
	a.word(0x4eb1b800|uint32(n<<5|d), "addv s%d, v%d.4s", d, n)
}

// sum adds the lanes of v: neighbours first.
func (a *asm) sum(v int) {
	a.v3("faddp", "4s", v, v, v)
	a.faddPair(v, v)
}

// faddFirst adds the first lanes; the others become zero.
func (a *asm) faddFirst(d, n, m int) {
	a.word(0x1e202800|uint32(m<<16|n<<5|d), "fadd s%d, s%d, s%d", d, n, m)
}

// fcmgeFirst compares the first lanes: ones where n >= m; the others become
// zero.
func (a *asm) fcmgeFirst(d, n, m int) {
	a.word(0x7e20e400|uint32(m<<16|n<<5|d), "fcmge s%d, s%d, s%d", d, n, m)
}

// Moves to general registers: the first 64 and the first 32 bits of n.
func (a *asm) toX(d gp, n int) {
	a.word(0x9e660000|uint32(n<<5)|uint32(d), "fmov x%d, d%d", int(d), n)
}

func (a *asm) toW(d gp, n int) {
	a.word(0x1e260000|uint32(n<<5)|uint32(d), "fmov w%d, s%d", int(d), n)
}

// views are the names of a vector register by bytes, with their loads and
// stores: at an offset, and advancing the address afterwards. Loads clear
// the rest of the register.
var views = map[int]struct {
	name                             string
	load, loadPost, store, storePost uint32
}{
	2:  {"h", 0x7d400000, 0x7c400400, 0x7d000000, 0x7c000400},
	4:  {"s", 0xbd400000, 0xbc400400, 0xbd000000, 0xbc000400},
	8:  {"d", 0xfd400000, 0xfc400400, 0xfd000000, 0xfc000400},
	16: {"q", 0x3dc00000, 0x3cc00400, 0x3d800000, 0x3c800400},
}

// ldr reads so many bytes at offset from p to v.
func (a *asm) ldr(bytes, v int, p gp, offset int) {
	a.word(views[bytes].load|uint32(offset/bytes<<10|int(p)<<5|v), "ldr %s%d, [x%d, #%d]", views[bytes].name, v, int(p), offset)
}

// ldrNext reads so many bytes at p to v and moves p behind them.
func (a *asm) ldrNext(bytes, v int, p gp) {
	a.word(views[bytes].loadPost|uint32(bytes<<12|int(p)<<5|v), "ldr %s%d, [x%d], #%d", views[bytes].name, v, int(p), bytes)
}

// str writes the first bytes of v to p plus offset.
func (a *asm) str(bytes, v int, p gp, offset int) {
	a.word(views[bytes].store|uint32(offset/bytes<<10|int(p)<<5|v), "str %s%d, [x%d, #%d]", views[bytes].name, v, int(p), offset)
}

// strNext writes the first bytes of v to p and moves p behind them.
func (a *asm) strNext(bytes, v int, p gp) {
	a.word(views[bytes].storePost|uint32(bytes<<12|int(p)<<5|v), "str %s%d, [x%d], #%d", views[bytes].name, v, int(p), bytes)
}

// ldp reads 32 bytes at offset from p to v and w.
func (a *asm) ldp(v, w int, p gp, offset int) {
	a.word(0xad400000|uint32(offset/16<<15|w<<10|int(p)<<5|v), "ldp q%d, q%d, [x%d, #%d]", v, w, int(p), offset)
}

// stp writes v and w to p plus offset.
func (a *asm) stp(v, w int, p gp, offset int) {
	a.word(0xad000000|uint32(offset/16<<15|w<<10|int(p)<<5|v), "stp q%d, q%d, [x%d, #%d]", v, w, int(p), offset)
}

// ldpNext and stpNext move p behind the 32 bytes.
func (a *asm) ldpNext(v, w int, p gp) {
	a.word(0xacc00000|uint32(2<<15|w<<10|int(p)<<5|v), "ldp q%d, q%d, [x%d], #32", v, w, int(p))
}

func (a *asm) stpNext(v, w int, p gp) {
	a.word(0xac800000|uint32(2<<15|w<<10|int(p)<<5|v), "stp q%d, q%d, [x%d], #32", v, w, int(p))
}

// ld1rNext fills v with the f32 at p and moves p behind it.
func (a *asm) ld1rNext(v int, p gp) {
	a.word(0x4ddfc800|uint32(int(p)<<5|v), "ld1r {v%d.4s}, [x%d], #4", v, int(p))
}

// prefetchLine asks the caches for the line at offset from p.
func (a *asm) prefetchLine(p gp, offset int) {
	a.word(0xf9800000|uint32(offset/8<<10|int(p)<<5), "prfm pldl1keep, [x%d, #%d]", int(p), offset)
}

func find(table map[string]uint32, key string) uint32 {
	code, ok := table[key]
	if !ok {
		panic(fmt.Sprintf("no instruction %q", key))
	}
	return code
}
