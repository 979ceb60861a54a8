package kernel

import (
	"math"
	"sync"
	"unsafe"
)

// TopKRange offers rows [lo, hi) with their scores to a collector for each of
// the 1 to [MaxQueries] queries (f32, length rows.Dim), row i as id+i-lo. The
// collectors then hold what [ScoreRange] and [TopK.Push] would have given
// them; scores that are below all of a full collector are not even written.
// scratch has length rows.Dim.
func TopKRange(qs [][]float32, rows Rows, lo, hi int, id uint32, tops []*TopK, scratch []float32) {
	x := scanPool.Get().(*scanScratch)
	defer scanPool.Put(x)
	if o := active; o != nil && o.scans[rows.DType].pack != nil && rows.Dim > 0 {
		s := o.scan(int(rows.DType), qs, rows.Dim, x)
		s.topKRange(rows, lo, hi, id, tops)
		return
	}
	x.pushRange(qs, rows, lo, hi, id, tops, scratch)
}

// pushRange is TopKRange by way of the scores.
func (x *scanScratch) pushRange(qs [][]float32, rows Rows, lo, hi int, id uint32, tops []*TopK, scratch []float32) {
	for i := lo; i < hi; i += scanBlock {
		n := min(scanBlock, hi-i)
		for j := range qs {
			x.out[j] = x.scores[j*scanBlock:][:n]
		}
		ScoreRange(qs, rows, i, i+n, x.out[:len(qs)], scratch)
		for j := range qs {
			tops[j].Push(id+uint32(i-lo), x.out[j])
		}
	}
}

// RoundedRange is [ScoreRange] with the queries rounded to bf16, and for bf16
// rows with the arithmetic of the CPU's bf16 instructions where there are
// some (level avx512vnni: pairs of products, subnormals taken for zero). Its
// scores are within 1.2e-2 of the sum of |q.k|: they choose candidates, which
// are then scored again by [ScoreList]; they are no logits.
func RoundedRange(qs [][]float32, rows Rows, lo, hi int, out [][]float32, scratch []float32) {
	x := scanPool.Get().(*scanScratch)
	defer scanPool.Put(x)
	if s, ok := x.roundedScan(qs, rows); ok {
		s.scoreRange(rows, lo, hi, out)
		return
	}
	ScoreRange(x.round(qs), rows, lo, hi, out, scratch)
}

// RoundedList is [ScoreList] with rounded queries, see [RoundedRange].
func RoundedList(qs [][]float32, rows Rows, ids []uint32, out [][]float32, scratch []float32) {
	x := scanPool.Get().(*scanScratch)
	defer scanPool.Put(x)
	if s, ok := x.roundedScan(qs, rows); ok {
		active.askFirst(rows, ids)
		s.scoreList(active, rows, ids, out)
		return
	}
	ScoreList(x.round(qs), rows, ids, out, scratch)
}

// RoundedTopKRange is [TopKRange] with rounded queries, see [RoundedRange].
func RoundedTopKRange(qs [][]float32, rows Rows, lo, hi int, id uint32, tops []*TopK, scratch []float32) {
	x := scanPool.Get().(*scanScratch)
	defer scanPool.Put(x)
	if s, ok := x.roundedScan(qs, rows); ok {
		s.topKRange(rows, lo, hi, id, tops)
		return
	}
	TopKRange(x.round(qs), rows, lo, hi, id, tops, scratch)
}

// round returns the queries rounded to bf16, as f32.
func (x *scanScratch) round(qs [][]float32) [][]float32 {
	dim := len(qs[0])
	x.values = grown(x.values, len(qs)*dim)
	for j, q := range qs {
		x.out[j] = x.values[j*dim:][:dim]
		for e, v := range q {
			x.out[j][e] = math.Float32frombits(uint32(F32ToBF16(v)) << 16)
		}
	}
	return x.out[:len(qs)]
}

// roundedScan returns the scan of bf16 rows with bf16 queries, if the level
// has one.
func (x *scanScratch) roundedScan(qs [][]float32, rows Rows) (s scan, ok bool) {
	if o := active; o == nil || rows.DType != BF16 || o.scans[rounded].pack == nil || rows.Dim == 0 {
		return s, false
	}
	// Packing moves words, of two elements each; whole steps of them.
	words := (rows.Dim + 31) / 32 * 16
	x.values = grown(x.values, len(qs)*words)
	clear(x.values[:len(qs)*words])
	for j, q := range qs {
		x.out[j] = x.values[j*words:][:words]
		halves := unsafe.Slice((*uint16)(unsafe.Pointer(&x.out[j][0])), 2*words)
		narrow(BF16, halves[:rows.Dim], q)
	}
	return active.scan(rounded, x.out[:len(qs)], words, x), true
}

// scanOps are the scans of rows of one dtype: scores of ranges and lists, and
// ranges compared with thresholds. A level may have none (pack is nil); then
// [ops.dots] and [ops.dotsList] serve.
//
// Queries are packed first: cut into steps of as many elements as the kernel
// multiplies at once, and in each step all queries of a group. The elements
// after the last whole step are a step filled up with zeros ([ops.padded]),
// or else one element of all queries after the other.
type scanOps struct {
	step       int // in f32: half as many where elements are bf16
	pack       packFunc
	dots, list [3]scanFunc // 1, 2 and 4 queries
	best       [3]bestFunc
}

// rounded is the form of scans, beside those of the dtypes, of bf16 rows with
// bf16 queries.
const rounded = 3

type (
	// packFunc writes whole steps of a query to dst, stride bytes apart, in
	// the order in which the scans take the elements of a row apart.
	packFunc = func(q *float32, steps int, dst *float32, stride int)
	// scanFunc writes oj[i] = qj . row (ids[i] or i), i < n. Listed rows are
	// asked for that many rows ahead of their use; the caller has asked for
	// the first ones.
	scanFunc = func(q *float32, rows *byte, ids *uint32, ahead, n, dim int, o0, o1, o2, o3 *float32)
	// bestFunc writes the tags 4*i+j and the scores of those pairs of row i
	// and query j whose score is not below least[j] (4 values). It stops
	// when fewer than 16 entries are free.
	bestFunc = func(q *float32, rows *byte, n, dim int, least *float32, tags *uint32, scores *float32, room int) (seen, found int)
)

// scanBlock is the number of scores of a query that are collected before
// they are offered to a top-k: they stay in the first-level cache.
const scanBlock = 512

// scanScratch is the memory that a scan needs besides its arguments.
type scanScratch struct {
	values []float32 // rounded queries
	packed []float32
	last   [32]float32 // the last step of a query
	least  [4]float32
	tags   [scanBlock]uint32
	scores [MaxQueries * scanBlock]float32
	out    [MaxQueries][]float32
}

var scanPool = sync.Pool{New: func() any { return new(scanScratch) }}

// grown returns x, or new memory where x is shorter than n.
func grown(x []float32, n int) []float32 {
	if len(x) < n {
		return make([]float32, n)
	}
	return x
}

// scan is a scan with its packed queries.
type scan struct {
	*scanOps
	*scanScratch
	n    int // queries
	size int // f32 of a group of four packed queries
}

// scan packs queries for the scans of a form.
func (o *ops) scan(form int, qs [][]float32, dim int, x *scanScratch) scan {
	s := scan{scanOps: &o.scans[form], scanScratch: x, n: len(qs)}
	s.size = 4 * ((dim + s.step - 1) / s.step * s.step)
	x.packed = grown(x.packed, (s.n+3)/4*s.size+16)
	for g := 0; g < s.n; g += 4 {
		group := qs[g:min(g+4, s.n)]
		n := 1 << kernelFor(len(group)) // the last query fills up the group
		dst := s.group(g)
		for j := range n {
			q := group[min(j, len(group)-1)][:dim]
			steps := dim / s.step
			if steps > 0 {
				s.pack(&q[0], steps, &dst[j*s.step], n*s.step*4)
			}
			tail, rest := q[steps*s.step:], dst[n*steps*s.step:]
			switch {
			case len(tail) == 0:
			case o.padded:
				clear(x.last[copy(x.last[:], tail):])
				s.pack(&x.last[0], 1, &rest[j*s.step], 0)
			default:
				for e, v := range tail {
					rest[e*n+j] = v
				}
			}
		}
	}
	return s
}

// group returns the packed queries from g on, a multiple of 4, at whole cache
// lines.
func (s *scan) group(g int) []float32 {
	line := -int(uintptr(unsafe.Pointer(&s.packed[0]))) & 63 / 4
	return s.packed[line+g/4*s.size:][:s.size]
}

// kernelFor is the index of the kernel for a group of n queries.
func kernelFor(n int) int { return min(n-1, 2) }

// into scores rows against all queries; out[j][at:] gets the scores of
// query j. Where a group has three queries, the kernel writes the scores of
// the last one twice.
func (s *scan) into(kernels *[3]scanFunc, rows *byte, ids *uint32, ahead, n, dim int, out [][]float32, at int) {
	for g := 0; g < s.n; g += 4 {
		o := out[g:min(g+4, s.n)]
		m := len(o) - 1
		kernels[kernelFor(len(o))](&s.group(g)[0], rows, ids, ahead, n, dim,
			first(o[0][at:], n), first(o[min(1, m)][at:], n), first(o[min(2, m)][at:], n), first(o[m][at:], n))
	}
}

// rowsPerCall is how many rows a call takes; when a second group of queries
// reads them too, they are to stay close.
func (s *scan) rowsPerCall(rows Rows) int {
	if s.n > 4 {
		return rows.rowsWithin(cacheBytes)
	}
	return rows.rowsWithin(callBytes)
}

func (s *scan) scoreRange(rows Rows, lo, hi int, out [][]float32) {
	step := s.rowsPerCall(rows)
	for i := lo; i < hi; i += step {
		n := min(step, hi-i)
		s.into(&s.dots, rows.from(i, n), nil, 0, n, rows.Dim, out, i-lo)
	}
}

// scoreList scores rows ids, of which the first were asked for.
func (s *scan) scoreList(o *ops, rows Rows, ids []uint32, out [][]float32) {
	base := rows.listed(ids)
	step := s.rowsPerCall(rows)
	for i := 0; i < len(ids); i += step {
		if i > 0 {
			o.askFirst(rows, ids[i:])
		}
		n := min(step, len(ids)-i)
		s.into(&s.list, base, &ids[i], rows.ahead(), n, rows.Dim, out, i)
	}
}

// ahead is how many listed rows are asked for ahead of their use.
func (r Rows) ahead() int { return max(listBytes/r.rowBytes()&^3, 4) }

func (s *scan) topKRange(rows Rows, lo, hi int, id uint32, tops []*TopK) {
	step := s.rowsPerCall(rows)
	for i := lo; i < hi; i += step {
		n := min(step, hi-i)
		for g := 0; g < s.n; g += 4 {
			s.topKGroup(g, tops[g:min(g+4, s.n)], rows, i, n, id+uint32(i-lo))
		}
	}
}

// topKGroup offers n rows from lo on to the collectors of a group of queries.
func (s *scan) topKGroup(g int, tops []*TopK, rows Rows, lo, n int, id uint32) {
	best := s.best[kernelFor(len(tops))]
	for n > 0 {
		for j := range s.least {
			s.least[j] = float32(math.Inf(1)) // of a query that fills up the group
			if j < len(tops) {
				s.least[j] = tops[j].least()
			}
		}
		seen, found := best(&s.group(g)[0], rows.from(lo, n), n, rows.Dim, &s.least[0], &s.tags[0], &s.scores[0], len(s.tags))
		for i, tag := range s.tags[:found] {
			if j := int(tag & 3); j < len(tops) { // a NaN passes every threshold
				tops[j].push(scored{s.scores[i], id + tag>>2})
			}
		}
		lo, n, id = lo+seen, n-seen, id+uint32(seen)
	}
}
