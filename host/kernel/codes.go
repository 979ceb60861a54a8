package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
)

// MaxCodeDim is the largest dimension of vectors that codes are made of.
const MaxCodeDim = 512

const (
	blockKeys = 16 // keys of a block
	groupDims = 32 // rotated dimensions whose digits fill whole words
	wordBytes = 4 * blockKeys
)

// Rotation is a random orthogonal map. It pads vectors with zeros to a
// multiple of 32 dimensions, all of which it uses: two rounds of random signs
// and a Hadamard transform. Where that is no power of two, four rounds of the
// largest power of two below act in turn on the first and on the last
// dimensions, which overlap. It is immutable.
type Rotation struct {
	dim, codeDim int
	width        int       // of a transform
	signs        []float32 // width of them a round, times 1/sqrt(width)
}

// NewRotation returns the rotation of a seed for vectors of dimension dim, 1
// to [MaxCodeDim]; it panics on others.
func NewRotation(dim int, seed uint64) *Rotation {
	if dim < 1 || dim > MaxCodeDim {
		panic(fmt.Sprintf("codes of dimension %d, there are those of 1 to %d", dim, MaxCodeDim))
	}
	r := &Rotation{dim: dim, codeDim: (dim + groupDims - 1) &^ (groupDims - 1), width: groupDims}
	for r.width*2 <= r.codeDim {
		r.width *= 2
	}
	rounds := 2
	if r.width < r.codeDim {
		rounds = 4
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	r.signs = make([]float32, rounds*r.width)
	unit := float32(1 / math.Sqrt(float64(r.width)))
	for i := range r.signs {
		r.signs[i] = unit
		if rng.Uint64()>>63 == 1 {
			r.signs[i] = -unit
		}
	}
	return r
}

// apply rotates x (length codeDim, zero from dim on) in place.
func (r *Rotation) apply(x []float32) {
	o := coding()
	last := r.codeDim - r.width
	for at, round := 0, 0; round < len(r.signs); round += r.width {
		o.hadamard(&x[at], &r.signs[round], r.width)
		at = last - at
	}
}

// Coder makes the codes of one KV head's keys: short stand-ins whose inner
// product with a query costs an eighth of a bf16 key's bytes at 2 bits, and
// tells well enough which keys deserve an exact one. A key minus the head's
// mean is rotated at random, so that its coordinates look alike and Gaussian,
// and each is rounded to 1 to 4 bits on a grid whose step is the key's own.
// The estimate of an inner product is scaled by |x|^2/<x,c>, x being the key
// and c its code, so that it is right on average over rotations. Rotation and
// correction are those of RaBitQ (arXiv 2405.12497, 2409.09913); the rounding
// is plain scalar quantisation. A coder is immutable.
//
// # Layout
//
// Codes lie in blocks of 16 keys, transposed so that each 32-bit lane of a
// vector is a key. The rotated dimension is a multiple of 32. Each 32
// dimensions take as many words as a code has bits; a word is 16 uint32, one a
// key, little-endian. Byte j of a key's uint32 holds, lowest bits first, the
// p-bit digits of dimensions 4s+j, s = 0 to 8/p - 1, counted from the word's
// first dimension:
//
//	1, 2, 4 bits  p = bits; word t of the 32 dimensions begins at dimension t * 32/p
//	3 bits        two words as for 2 bits with the low bits, then one as for 1 bit with the third
//
// The words of all dimensions are followed by the 16 scales, f32. Digit c
// stands for the coordinate scale * (c - (2^bits-1)/2), but that the scale
// holds the correction. A key without an estimate has scale NaN, and so has
// every lane that no key fills yet.
type Coder struct {
	rotation *Rotation
	bits     int
	mean     []float32
}

// meanRows is about how many rows a mean is taken over. Any vector near the
// mean serves: that of 4096 rows lengthens the average residual by 1/8192.
const meanRows = 4096

// NewCoder returns a coder of 1 to 4 bits a dimension around the mean of
// some rows, evenly spaced in sample, but for those that are not finite or
// whose squared norm overflows f32. Keys coded later keep this mean. It panics
// on other numbers of bits and on rows of another dimension.
func NewCoder(rotation *Rotation, bits int, sample Rows) *Coder {
	if sample.Dim != rotation.dim {
		panic(fmt.Sprintf("codes: rows of dimension %d, a rotation of %d", sample.Dim, rotation.dim))
	}
	mean, row := make([]float64, sample.Dim), make([]float32, sample.Dim)
	n := 0
	step := max(1, sample.N/meanRows)
	for i := 0; i < sample.N; i += step {
		sample.Widen(i, row)
		if !(Dot(row, row) <= math.MaxFloat32) {
			continue
		}
		n++
		for j, v := range row {
			mean[j] += float64(v)
		}
	}
	for j, v := range mean {
		row[j] = float32(v / float64(max(n, 1)))
	}
	return NewCoderAround(rotation, bits, row)
}

// NewCoderAround returns a coder around a given mean, which it keeps, finite
// and of the rotation's dimension.
func NewCoderAround(rotation *Rotation, bits int, mean []float32) *Coder {
	if bits < 1 || bits > 4 {
		panic(fmt.Sprintf("codes of %d bits, there are those of 1 to 4", bits))
	}
	if len(mean) != rotation.dim || !finite(mean) {
		panic(fmt.Sprintf("codes around a mean that is not %d finite numbers", rotation.dim))
	}
	return &Coder{rotation: rotation, bits: bits, mean: mean}
}

func finite(x []float32) bool {
	for _, v := range x {
		if v-v != 0 {
			return false
		}
	}
	return true
}

// Bits returns the bits of a dimension's code.
func (c *Coder) Bits() int { return c.bits }

// Mean returns the vector that is taken off the keys; borrowed.
func (c *Coder) Mean() []float32 { return c.mean }

// centre is the middle of the digits.
func (c *Coder) centre() float32 { return float32(int(1)<<c.bits-1) / 2 }

func (c *Coder) groups() int { return c.rotation.codeDim / groupDims }

func (c *Coder) blockBytes() int { return wordBytes * (c.bits*c.groups() + 1) }

// Bytes returns the bytes that the codes of n keys take.
func (c *Coder) Bytes(n int) int { return (n + blockKeys - 1) / blockKeys * c.blockBytes() }

// Codes are the codes of a growing list of keys, in memory of the caller's
// that must outlive them. Nothing moves as they grow. Many goroutines may read
// at the same time; Append excludes all else.
type Codes struct {
	coder  *Coder
	mem    []byte
	n      int
	row    []float32 // scratch of Append
	digits []byte
	sums   [3]float32
}

// Over returns the codes stored in mem, n keys of them; the rest of mem, in
// whole blocks, is room for more. mem is aligned to 4 bytes, better to 64. It
// panics when mem is shorter than Bytes(n).
func (c *Coder) Over(mem []byte, n int) *Codes {
	if need := c.Bytes(n); len(mem) < need || n < 0 {
		panic(fmt.Sprintf("codes: %d keys need %d bytes, there are %d", n, need, len(mem)))
	}
	mem = mem[:len(mem)/c.blockBytes()*c.blockBytes()]
	return &Codes{coder: c, mem: mem, n: n, row: make([]float32, c.rotation.codeDim), digits: make([]byte, c.rotation.codeDim)}
}

// Coder returns the coder of these codes.
func (c *Codes) Coder() *Coder { return c.coder }

// Len returns the number of keys coded.
func (c *Codes) Len() int { return c.n }

// Cap returns the number of keys that there is room for.
func (c *Codes) Cap() int { return len(c.mem) / c.coder.blockBytes() * blockKeys }

// Append codes rows [lo, hi) of keys, in constant time each. It panics when
// they do not fit or have another dimension. A key with an element that is not
// finite, or whose squared distance from the mean overflows f32, gets no
// estimate.
func (c *Codes) Append(keys Rows, lo, hi int) {
	if keys.Dim != c.coder.rotation.dim || lo < 0 || lo > hi || hi > keys.N || c.n+hi-lo > c.Cap() {
		panic(fmt.Sprintf("codes: append rows [%d, %d) of %d of dimension %d to %d of %d codes of dimension %d",
			lo, hi, keys.N, keys.Dim, c.n, c.Cap(), c.coder.rotation.dim))
	}
	for i := lo; i < hi; i++ {
		scale := c.encode(keys, i)
		c.store(c.n, scale)
		c.n++
	}
}

// steps are the grid steps tried for a key, by bits, as multiples of the root
// mean square of its coordinates: the best one for a Gaussian (Max, IRE Trans.
// Inf. Theory 6, 1960) and its neighbours. The sign alone needs no step.
var steps = [5][]float32{
	1: {1},
	2: {0.85, 0.9957, 1.15},
	3: {0.5, 0.586, 0.68},
	4: {0.28, 0.3352, 0.4},
}

// encode rotates row i of keys and leaves its digits in c.digits. It returns
// the key's scale.
func (c *Codes) encode(keys Rows, i int) float32 {
	y, d := c.row, c.coder.rotation.dim
	keys.Widen(i, y[:d])
	clear(y[d:])
	axpy(-1, c.coder.mean, y[:d])
	c.coder.rotation.apply(y)
	o := coding()
	n, half := len(y), float32(int(1)<<c.coder.bits/2)
	sums := &c.sums
	o.gridSums(&y[0], n, 0, half, sums)
	yy := sums[0]
	if !(yy <= math.MaxFloat32) {
		clear(c.digits)
		return float32(math.NaN())
	}
	if yy == 0 {
		clear(c.digits)
		return 0
	}
	rms := float32(math.Sqrt(float64(yy) / float64(n)))
	var best, scale, inverse float32
	for _, s := range steps[c.coder.bits] {
		inv := 1 / (s * rms)
		o.gridSums(&y[0], n, inv, half, sums)
		// The cosine of the angle between key and code decides.
		if fit := sums[1] / sums[2] * sums[1]; fit > best {
			best, scale, inverse = fit, yy/sums[1], inv
		}
	}
	o.digits(&y[0], n, inverse, half, &c.digits[0])
	return scale
}

// store writes the digits in c.digits and a scale as key i. The first key of
// a block marks the others as missing.
func (c *Codes) store(i int, scale float32) {
	size := c.coder.blockBytes()
	block, lane := c.mem[i/blockKeys*size:][:size], i%blockKeys
	scales := block[size-wordBytes:]
	if lane == 0 {
		nan := math.Float32bits(float32(math.NaN()))
		for l := range blockKeys {
			binary.LittleEndian.PutUint32(scales[4*l:], nan)
		}
	}
	binary.LittleEndian.PutUint32(scales[4*lane:], math.Float32bits(scale))
	bits := c.coder.bits
	for g := 0; g*groupDims < len(c.digits); g++ {
		d := c.digits[g*groupDims:][:groupDims]
		var m [8]uint32 // the digits of dimensions 4s to 4s+3
		for s := range m {
			m[s] = binary.LittleEndian.Uint32(d[4*s:])
		}
		words := block[g*bits*wordBytes+4*lane:][:(bits-1)*wordBytes+4]
		switch bits {
		case 1:
			binary.LittleEndian.PutUint32(words, m[0]|m[1]<<1|m[2]<<2|m[3]<<3|m[4]<<4|m[5]<<5|m[6]<<6|m[7]<<7)
		case 2:
			binary.LittleEndian.PutUint32(words, m[0]|m[1]<<2|m[2]<<4|m[3]<<6)
			binary.LittleEndian.PutUint32(words[wordBytes:], m[4]|m[5]<<2|m[6]<<4|m[7]<<6)
		case 3:
			const low, high = 0x03030303, 0x04040404
			var l, h [8]uint32
			for s, v := range m {
				l[s], h[s] = v&low, v&high>>2
			}
			binary.LittleEndian.PutUint32(words, l[0]|l[1]<<2|l[2]<<4|l[3]<<6)
			binary.LittleEndian.PutUint32(words[wordBytes:], l[4]|l[5]<<2|l[6]<<4|l[7]<<6)
			binary.LittleEndian.PutUint32(words[2*wordBytes:], h[0]|h[1]<<1|h[2]<<2|h[3]<<3|h[4]<<4|h[5]<<5|h[6]<<6|h[7]<<7)
		case 4:
			binary.LittleEndian.PutUint32(words, m[0]|m[1]<<4)
			binary.LittleEndian.PutUint32(words[wordBytes:], m[2]|m[3]<<4)
			binary.LittleEndian.PutUint32(words[2*wordBytes:], m[4]|m[5]<<4)
			binary.LittleEndian.PutUint32(words[3*wordBytes:], m[6]|m[7]<<4)
		}
	}
}
