package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"
)

// CodeQueries are 1 to [MaxQueries] queries made ready for reading codes:
// rotated as the keys are and rounded to eight bits. They hold scratch memory
// and serve one goroutine at a time; the zero value is ready for Set, which
// allocates the first time only.
type CodeQueries struct {
	coder *Coder
	n     int
	list  [MaxQueries]codeQuery
	row   []float32
	chunk [MaxQueries][]float32 // estimates of a stretch of keys
	scale []float32             // and the keys' scales
}

type codeQuery struct {
	ints          []int8
	centre        float32 // what is taken off q . digits
	margin        float32 // what a bound lies above an estimate, in scales
	scale, offset float32
}

// chunkKeys is the number of keys whose estimates are made before they are
// looked at: for four queries they fill half of a first-level cache.
const chunkKeys = 1024

// A bound lies two standard deviations above the estimate. The error of a
// rotated coordinate is .30 to .33 of a key's scale, for Gaussian coordinates
// and any number of bits, and the errors of coordinates are independent.
const (
	boundDeviations = 2
	stepError       = 0.32
)

// Set prepares queries, f32 of the coder's dimension, for codes of the coder.
func (s *CodeQueries) Set(c *Coder, qs [][]float32) {
	if len(qs) < 1 || len(qs) > MaxQueries {
		panic(fmt.Sprintf("codes: %d queries, 1 to %d can be asked at once", len(qs), MaxQueries))
	}
	s.coder, s.n = c, len(qs)
	dim := c.rotation.codeDim
	if cap(s.row) < dim {
		s.row = make([]float32, dim)
	}
	s.row = s.row[:dim]
	for j, q := range qs {
		if len(q) != c.rotation.dim {
			panic(fmt.Sprintf("codes: a query of dimension %d for keys of %d", len(q), c.rotation.dim))
		}
		if s.chunk[j] == nil {
			s.chunk[j] = make([]float32, chunkKeys)
		}
		p := &s.list[j]
		if cap(p.ints) < dim {
			p.ints = make([]int8, dim)
		}
		p.ints = p.ints[:dim]
		clear(s.row[copy(s.row, q):])
		p.offset = Dot(q, c.mean)
		c.rotation.apply(s.row)
		var most float32
		for _, v := range s.row {
			most = max(most, float32(math.Abs(float64(v)))) // NaN stays
		}
		p.scale = most / 127
		inv := 1 / p.scale
		if !(inv <= math.MaxFloat32) {
			inv = 0 // nothing to tell keys apart by
		}
		sum, squares := 0, 0
		for i, v := range s.row {
			p.ints[i] = 0
			if inv > 0 {
				p.ints[i] = int8(math.RoundToEven(float64(min(max(v*inv, -127), 127))))
			}
			sum += int(p.ints[i])
			squares += int(p.ints[i]) * int(p.ints[i])
		}
		p.centre = float32(sum) * c.centre()
		p.margin = float32(boundDeviations * stepError * math.Sqrt(float64(squares)))
	}
}

// Len returns the number of queries.
func (s *CodeQueries) Len() int { return s.n }

// Unit returns what turns an estimate e of query j into one of q.k: scale*e +
// offset. The scale is not negative, so that estimates are in the order of
// inner products.
func (s *CodeQueries) Unit(j int) (scale, offset float32) {
	return s.list[j].scale, s.list[j].offset
}

// estimateBlocks writes estimates, or their bounds, of n blocks from block b on.
func (c *Codes) estimateBlocks(s *CodeQueries, b, n int, bound bool, out *[MaxQueries][]float32) {
	size := c.coder.blockBytes()
	mem := c.mem[b*size:][:n*size]
	if n == 0 {
		return
	}
	var centres [MaxQueries]float32
	for j := range s.n {
		centres[j] = s.list[j].centre
		if bound {
			centres[j] -= s.list[j].margin
		}
	}
	forms := &coding().estimate[c.coder.bits-1]
	for j := 0; j < s.n; j += 4 {
		// A missing query is the last one again: its results are written twice.
		m := min(3, s.n-1-j)
		j1, j2, j3 := j+min(1, m), j+min(2, m), j+min(3, m)
		forms[min(m, 2)](&s.list[j].ints[0], &s.list[j1].ints[0], &s.list[j2].ints[0], &s.list[j3].ints[0],
			centres[j], centres[j1], centres[j2], centres[j3], &mem[0], n, c.coder.groups(),
			first(out[j], n*blockKeys), first(out[j1], n*blockKeys), first(out[j2], n*blockKeys), first(out[j3], n*blockKeys))
	}
}

// each calls f for stretches [lo, lo+n) of the keys [lo, hi) with their
// estimates, or bounds, in s.chunk[j][at:at+n]; it ends when f returns false.
func (c *Codes) each(s *CodeQueries, lo, hi int, bound bool, f func(lo, n, at int) bool) {
	if s.coder != c.coder {
		panic("codes: queries prepared for another coder")
	}
	if lo < 0 || lo > hi || hi > c.n {
		panic(fmt.Sprintf("codes: keys [%d, %d) of %d", lo, hi, c.n))
	}
	for lo < hi {
		at := lo % blockKeys
		n := min(hi-lo, chunkKeys-at)
		c.estimateBlocks(s, lo/blockKeys, (at+n+blockKeys-1)/blockKeys, bound, &s.chunk)
		if !f(lo, n, at) {
			return
		}
		lo += n
	}
}

// Estimate writes estimates of the inner products of the queries with keys
// [lo, hi) to out[j][i-lo], in the unit that [CodeQueries.Unit] gives; NaN for
// keys that have none. It panics when the range is not within the keys. All
// levels give the same bits.
func (c *Codes) Estimate(s *CodeQueries, lo, hi int, out [][]float32) {
	c.write(s, lo, hi, false, out)
}

// Bound writes what Estimate does, raised by two standard deviations of the
// estimate's error, which is in proportion to a key's distance from the mean.
// Among keys of one estimate those far out are the more likely to be among the
// best, so candidates are chosen by their bounds, as with RaBitQ.
func (c *Codes) Bound(s *CodeQueries, lo, hi int, out [][]float32) {
	c.write(s, lo, hi, true, out)
}

func (c *Codes) write(s *CodeQueries, lo, hi int, bound bool, out [][]float32) {
	start := lo
	c.each(s, lo, hi, bound, func(lo, n, at int) bool {
		for j := range s.n {
			copy(out[j][lo-start:][:n], s.chunk[j][at:])
		}
		return true
	})
}

// Candidates are keys whose bounds reached a threshold, by increasing id. IDs
// and Bounds have one length; their capacities limit what a scan adds.
type Candidates struct {
	IDs    []uint32
	Bounds []float32
}

// Scan appends the keys in [lo, hi) whose bounds ([Codes.Bound]) are at least
// least[j] to into[j], with first added to their ids. Keys without an estimate
// are never among them. It stops at a multiple of 16 before keys for which
// some list might lack room, and returns the key where to go on: hi when all
// is done, lo when a list has room for fewer than 16.
//
// When rest is not nil, the keys scanned and not taken add exp(scale * q.k),
// q.k as estimated, to the state rest[j] (Max and Sum; Acc is empty): the
// attention mass that the candidates leave out, within 1e-4 of the estimates'.
// scale is not negative.
func (c *Codes) Scan(s *CodeQueries, lo, hi int, first uint32, least []float32, into []Candidates, rest []Partial, scale float32) int {
	o := coding()
	next := lo
	c.each(s, lo, hi, true, func(lo, n, at int) bool {
		if rest != nil {
			c.readScales(lo/blockKeys, (at+n+blockKeys-1)/blockKeys, s)
		}
		for n > 0 {
			room := n
			for j := range s.n {
				room = min(room, cap(into[j].IDs)-len(into[j].IDs), cap(into[j].Bounds)-len(into[j].Bounds))
			}
			if room < n {
				room -= (at + room) % blockKeys
			}
			if room <= 0 {
				return false
			}
			for j := range s.n {
				l, x := &into[j], s.chunk[j][at:at+room]
				m := len(l.IDs)
				ids, bounds := l.IDs[:m+room], l.Bounds[:m+room]
				taken := o.takeAtLeast(&x[0], room, first+uint32(lo), least[j], &ids[m], &bounds[m])
				l.IDs, l.Bounds = l.IDs[:m+taken], l.Bounds[:m+taken]
				if rest != nil {
					for _, id := range l.IDs[m:] {
						x[id-first-uint32(lo)] = float32(math.NaN())
					}
					axpy(-s.list[j].margin, s.scale[at:at+room], x)
					rest[j].addEstimates(s, j, x, scale)
				}
			}
			lo, n, at = lo+room, n-room, at+room
			next = lo
		}
		return true
	})
	return next
}

// readScales copies the scales of n blocks from block b on to s.scale.
func (c *Codes) readScales(b, n int, s *CodeQueries) {
	if s.scale == nil {
		s.scale = make([]float32, chunkKeys)
	}
	size := c.coder.blockBytes()
	for i := range n {
		scales := c.mem[(b+i+1)*size-wordBytes:][:wordBytes]
		copy(s.scale[i*blockKeys:], unsafe.Slice((*float32)(unsafe.Pointer(&scales[0])), blockKeys))
	}
}

// scale returns the scale of key i.
func (c *Codes) scale(i int) float32 {
	size := c.coder.blockBytes()
	return math.Float32frombits(binary.LittleEndian.Uint32(c.mem[(i/blockKeys+1)*size-wordBytes+i%blockKeys*4:]))
}

// addEstimates adds the mass of the estimates x of query j; NaN has none.
func (p *Partial) addEstimates(s *CodeQueries, j int, x []float32, scale float32) {
	a, b := s.Unit(j)
	p.addBelow(x, float32(math.Inf(1)), scale*a, scale*b)
}

// addBelow adds exp(a*v + b) for each v of x that is below limit; a >= 0.
func (p *Partial) addBelow(x []float32, limit, a, b float32) {
	m := largest(x)
	if math.IsInf(float64(m), -1) {
		return
	}
	p.raise(a*m + b)
	pieces(len(x), func(lo, n int) { p.Sum += coding().sumExp(&x[lo], n, limit, a, b-p.Max) })
}

// largest returns the largest number in x, -Inf when there is none.
func largest(x []float32) float32 {
	m := float32(math.Inf(-1))
	if active != nil {
		pieces(len(x), func(lo, n int) { m = max(m, active.maxOf(&x[lo], n)) })
		return m
	}
	for _, v := range x {
		if v > m {
			m = v
		}
	}
	return m
}
