package kernel

import (
	"fmt"
	"math"
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
}

type codeQuery struct {
	ints          []int8
	centre        float32 // what is taken off q . digits
	scale, offset float32
}

// chunkKeys is the number of keys whose estimates are made before they are
// looked at: for four queries they fill half of a first-level cache.
const chunkKeys = 1024

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
		sum := 0
		for i, v := range s.row {
			p.ints[i] = 0
			if inv > 0 {
				p.ints[i] = int8(math.RoundToEven(float64(min(max(v*inv, -127), 127))))
			}
			sum += int(p.ints[i])
		}
		p.centre = float32(sum) * c.centre()
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

// estimateBlocks writes the estimates of n blocks from block b on.
func (c *Codes) estimateBlocks(s *CodeQueries, b, n int, out *[MaxQueries][]float32) {
	size := c.coder.blockBytes()
	mem := c.mem[b*size:][:n*size]
	if n == 0 {
		return
	}
	forms := &coding().estimate[c.coder.bits-1]
	for j := 0; j < s.n; j += 4 {
		// A missing query is the last one again: its results are written twice.
		m := min(3, s.n-1-j)
		j1, j2, j3 := j+min(1, m), j+min(2, m), j+min(3, m)
		q0, q1, q2, q3 := &s.list[j], &s.list[j1], &s.list[j2], &s.list[j3]
		forms[min(m, 2)](&q0.ints[0], &q1.ints[0], &q2.ints[0], &q3.ints[0], q0.centre, q1.centre, q2.centre, q3.centre,
			&mem[0], n, c.coder.groups(),
			first(out[j], n*blockKeys), first(out[j1], n*blockKeys), first(out[j2], n*blockKeys), first(out[j3], n*blockKeys))
	}
}

// each calls f for stretches [lo, lo+n) of the keys [lo, hi) with their
// estimates in s.chunk[j][at:at+n]; it ends when f returns false.
func (c *Codes) each(s *CodeQueries, lo, hi int, f func(lo, n, at int) bool) {
	if s.coder != c.coder {
		panic("codes: queries prepared for another coder")
	}
	if lo < 0 || lo > hi || hi > c.n {
		panic(fmt.Sprintf("codes: keys [%d, %d) of %d", lo, hi, c.n))
	}
	for lo < hi {
		at := lo % blockKeys
		n := min(hi-lo, chunkKeys-at)
		c.estimateBlocks(s, lo/blockKeys, (at+n+blockKeys-1)/blockKeys, &s.chunk)
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
	start := lo
	c.each(s, lo, hi, func(lo, n, at int) bool {
		for j := range s.n {
			copy(out[j][lo-start:][:n], s.chunk[j][at:])
		}
		return true
	})
}

// Candidates are keys whose estimates reached a threshold, by increasing id.
// IDs and Estimates have one length; their capacities bound what a scan adds.
type Candidates struct {
	IDs       []uint32
	Estimates []float32
}

// Scan appends the keys in [lo, hi) whose estimates are at least least[j] to
// into[j], with first added to their ids. Keys without an estimate are never
// among them. It stops at a multiple of 16 before keys for which some list
// might lack room, and returns the key where to go on: hi when all is done, lo
// when a list has room for fewer than 16.
//
// When rest is not nil, the keys scanned and not taken add exp(scale * q.k),
// q.k as estimated, to the state rest[j] (Max and Sum; Acc is empty): the
// attention mass that the candidates leave out, within 1e-4 of the estimates'.
// scale is not negative.
func (c *Codes) Scan(s *CodeQueries, lo, hi int, first uint32, least []float32, into []Candidates, rest []Partial, scale float32) int {
	o := coding()
	next := lo
	c.each(s, lo, hi, func(lo, n, at int) bool {
		for n > 0 {
			room := n
			for j := range s.n {
				room = min(room, cap(into[j].IDs)-len(into[j].IDs), cap(into[j].Estimates)-len(into[j].Estimates))
			}
			if room < n {
				// Up to the end of a block.
				room -= (at + room) % blockKeys
			}
			if room <= 0 {
				return false
			}
			for j := range s.n {
				l, e := &into[j], &s.chunk[j][at]
				if rest != nil {
					rest[j].addEstimates(s, j, s.chunk[j][at:at+room], least[j], scale)
				}
				m := len(l.IDs)
				ids, values := l.IDs[:m+room], l.Estimates[:m+room]
				m += o.takeAtLeast(e, room, first+uint32(lo), least[j], &ids[m], &values[m])
				l.IDs, l.Estimates = l.IDs[:m], l.Estimates[:m]
			}
			lo, n, at = lo+room, n-room, at+room
			next = lo
		}
		return true
	})
	return next
}

// addEstimates adds the mass of the estimates x of query j that are below
// limit.
func (p *Partial) addEstimates(s *CodeQueries, j int, x []float32, limit, scale float32) {
	a, b := s.Unit(j)
	p.addBelow(x, limit, scale*a, scale*b)
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
