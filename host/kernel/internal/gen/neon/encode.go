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
	"zip1 8h":  0x4e403800, // n0 m0 n1 m1 n2 m2 n3 m3
	"zip2 8h":  0x4e407800, // n4 m4 ...
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

// dup fills d with lane i of n.
func (a *asm) dup(d, n, i int) {
	a.word(0x4e040400|uint32(i<<19|n<<5|d), "dup v%d.4s, v%d.s[%d]", d, n, i)
}

func (a *asm) zero(d int) { a.word(0x6f00e400|uint32(d), "movi v%d.2d, #0", d) }

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

// sum adds the lanes of v: neighbours first.
func (a *asm) sum(v int) {
	a.v3("faddp", "4s", v, v, v)
	a.faddPair(v, v)
}

// faddFirst adds the first lanes; the others become zero.
func (a *asm) faddFirst(d, n, m int) {
	a.word(0x1e202800|uint32(m<<16|n<<5|d), "fadd s%d, s%d, s%d", d, n, m)
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
	name                      string
	load, loadPost, storePost uint32
}{
	2:  {"h", 0x7d400000, 0x7c400400, 0x7c000400},
	4:  {"s", 0xbd400000, 0xbc400400, 0xbc000400},
	8:  {"d", 0xfd400000, 0xfc400400, 0xfc000400},
	16: {"q", 0x3dc00000, 0x3cc00400, 0x3c800400},
}

// ldr reads so many bytes at offset from p to v.
func (a *asm) ldr(bytes, v int, p gp, offset int) {
	a.word(views[bytes].load|uint32(offset/bytes<<10|int(p)<<5|v), "ldr %s%d, [x%d, #%d]", views[bytes].name, v, int(p), offset)
}

// ldrNext reads so many bytes at p to v and moves p behind them.
func (a *asm) ldrNext(bytes, v int, p gp) {
	a.word(views[bytes].loadPost|uint32(bytes<<12|int(p)<<5|v), "ldr %s%d, [x%d], #%d", views[bytes].name, v, int(p), bytes)
}

// strNext writes the first bytes of v to p and moves p behind them.
func (a *asm) strNext(bytes, v int, p gp) {
	a.word(views[bytes].storePost|uint32(bytes<<12|int(p)<<5|v), "str %s%d, [x%d], #%d", views[bytes].name, v, int(p), bytes)
}

// ldp reads 32 bytes at offset from p to v and w.
func (a *asm) ldp(v, w int, p gp, offset int) {
	a.word(0xad400000|uint32(offset/16<<15|w<<10|int(p)<<5|v), "ldp q%d, q%d, [x%d, #%d]", v, w, int(p), offset)
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
