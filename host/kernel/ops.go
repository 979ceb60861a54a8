package kernel

import (
	"fmt"
	"math"
	"unsafe"
)

// ops is the dispatch table: the vector forms of one level. They are
// assembly (see internal/gen) that checks nothing, so the methods here check
// shapes and cut the work into calls that are far shorter than a millisecond:
// the garbage collector cannot stop a goroutine inside assembly.
//
// Lengths are in elements, n may be 0, dim may not. Rows are passed as bytes;
// ids is nil where rows are consecutive.
type ops struct {
	dots, dotsList         [3][3]dotsFunc // by dtype; 1, 2 and 4 queries; lists only without scans
	weighted, weightedList [3]weightedFunc
	widen                  [3]widenFunc // none for F32
	prefetch               func(rows *byte, ids *uint32, n, bytes int)
	axpy                   func(w float32, x, y *float32, n int)
	scale                  func(c float32, x *float32, n int)
	maxOf                  func(x *float32, n int) float32
	firstAtLeast           func(x *float32, n int, least float32) int
	expSum                 func(x *float32, n int, shift float32) float32
	siluGate               func(gate, up *float32, n int)
	sumSquares             func(x *float32, n int) float64
	normMul                func(x, weight *float32, inv float32, out *float32, n int)
	rope                   func(a, b, cos, sin *float32, n int)
	ropeTable              func(pos float32, invFreq, cos, sin *float32, n int)
	narrow                 [3]narrowFunc // n a multiple of 16; none for F32
	scans                  [4]scanOps    // by dtype, and rounded
	padded                 bool          // the last step of packed queries is a whole one
	tiles                  tileOps
	codes                  *codeOps // nil for the forms in Go
}

type (
	// dotsFunc writes oj[i] = qj . row (ids[i] or i), i < n.
	dotsFunc = func(q0, q1, q2, q3 *float32, rows *byte, ids *uint32, n, dim int, o0, o1, o2, o3 *float32)
	// weightedFunc adds the sum of w[i] * row (ids[i] or i), i < n, to acc.
	weightedFunc = func(w *float32, rows *byte, ids *uint32, n, dim int, acc *float32)
	widenFunc    = func(dst *float32, src *uint16, n int)
	narrowFunc   = func(dst *uint16, src *float32, n int)
)

const (
	// callBytes is the most stored bytes that one call streams.
	callBytes = 256 << 10
	// cacheBytes is the most stored bytes of a call whose rows are read
	// again soon: they stay close.
	cacheBytes = 32 << 10
	// listBytes is the most bytes of listed rows that are asked for ahead of
	// their use, about as many lines as a core can wait for: hints beyond
	// that are dropped, and then each row is waited for in turn.
	listBytes = 1024
	// callElements is the most elements of a call on plain vectors.
	callElements = 1 << 15
)

// rowsWithin returns how many rows of r make up about so many bytes, a
// multiple of 8 and at least 8.
func (r Rows) rowsWithin(bytes int) int { return max(bytes/r.rowBytes()&^7, 8) }

func (r Rows) rowBytes() int { return r.Dim * r.DType.Size() }

// from returns the address of row lo, of which n rows at least are stored.
func (r Rows) from(lo, n int) *byte {
	if r.DType == F32 {
		return (*byte)(unsafe.Pointer(unsafe.SliceData(r.F32[lo*r.Dim : (lo+n)*r.Dim])))
	}
	return (*byte)(unsafe.Pointer(unsafe.SliceData(r.U16[lo*r.Dim : (lo+n)*r.Dim])))
}

// listed returns the address of row 0 and panics when an id is not a row.
func (r Rows) listed(ids []uint32) *byte {
	n := r.N
	for _, id := range ids {
		if uint(id) >= uint(n) {
			panic(fmt.Sprintf("row %d of %d", id, n))
		}
	}
	return r.from(0, n)
}

// first returns the address of x, which holds at least n elements.
func first(x []float32, n int) *float32 { return unsafe.SliceData(x[:n]) }

// dotsInto scores n rows against up to four queries; out[j][at:] gets the
// scores of query j. A missing query is the last one again: the kernel
// writes its scores twice.
func dotsInto(f *[3]dotsFunc, qs [][]float32, rows *byte, ids *uint32, n, dim int, out [][]float32, at int) {
	m := len(qs) - 1
	j1, j2, j3 := min(1, m), min(2, m), min(3, m)
	f[min(m, 2)](
		first(qs[0], dim), first(qs[j1], dim), first(qs[j2], dim), first(qs[j3], dim),
		rows, ids, n, dim,
		first(out[0][at:], n), first(out[j1][at:], n), first(out[j2][at:], n), first(out[j3][at:], n))
}

// listed calls f for consecutive pieces ids[lo:lo+n] of a list, each asked
// for while the one before is worked on. base is row 0 of rows.
func (o *ops) listed(rows Rows, base *byte, ids []uint32, f func(lo, n int)) {
	step := rows.ahead()
	o.prefetch(base, unsafe.SliceData(ids), min(step, len(ids)), rows.rowBytes())
	for lo := 0; lo < len(ids); lo += step {
		if next := lo + step; next < len(ids) {
			o.prefetch(base, &ids[next], min(step, len(ids)-next), rows.rowBytes())
		}
		f(lo, min(step, len(ids)-lo))
	}
}

// askFirst asks the caches for the first rows of a list.
func (o *ops) askFirst(rows Rows, ids []uint32) {
	o.prefetch(rows.from(0, rows.N), unsafe.SliceData(ids), min(rows.ahead(), len(ids)), rows.rowBytes())
}

func (o *ops) scoreList(qs [][]float32, rows Rows, ids []uint32, out [][]float32) {
	if o.scans[rows.DType].pack != nil {
		o.askFirst(rows, ids) // packing the queries gives them time
		x := scanPool.Get().(*scanScratch)
		s := o.scan(int(rows.DType), qs, rows.Dim, x)
		s.scoreList(o, rows, ids, out)
		scanPool.Put(x)
		return
	}
	base := rows.listed(ids)
	o.listed(rows, base, ids, func(lo, n int) {
		for j := 0; j < len(qs); j += 4 {
			dotsInto(&o.dotsList[rows.DType], qs[j:min(j+4, len(qs))], base, &ids[lo], n, rows.Dim, out[j:], lo)
		}
	})
}

func (o *ops) scoreRange(qs [][]float32, rows Rows, lo, hi int, out [][]float32) {
	if o.scans[rows.DType].pack != nil {
		x := scanPool.Get().(*scanScratch)
		s := o.scan(int(rows.DType), qs, rows.Dim, x)
		s.scoreRange(rows, lo, hi, out)
		scanPool.Put(x)
		return
	}
	step := rows.rowsWithin(callBytes)
	if len(qs) > 4 {
		step = rows.rowsWithin(cacheBytes)
	}
	for i := lo; i < hi; i += step {
		n := min(step, hi-i)
		base := rows.from(i, n)
		for j := 0; j < len(qs); j += 4 {
			dotsInto(&o.dots[rows.DType], qs[j:min(j+4, len(qs))], base, nil, n, rows.Dim, out[j:], i-lo)
		}
	}
}

// mulNT computes c[i*ldc+j] = a[i] . b[lo+j] for the n rows of a and m rows
// of b, in blocks of rows of b that stay in the first-level cache.
func (o *ops) mulNT(a []float32, n int, b Rows, lo, m int, c []float32, ldc int) {
	d := b.Dim
	step := b.rowsWithin(cacheBytes * 3 / 4)
	if n <= 4 { // read once
		step = b.rowsWithin(callBytes)
	}
	for j := 0; j < m; j += step {
		w := min(step, m-j)
		base := b.from(lo+j, w)
		for i := 0; i < n; i += 4 {
			last := min(3, n-1-i)
			i1, i2, i3 := i+min(1, last), i+min(2, last), i+min(3, last)
			o.dots[b.DType][min(last, 2)](
				first(a[i*d:], d), first(a[i1*d:], d), first(a[i2*d:], d), first(a[i3*d:], d),
				base, nil, w, d,
				first(c[i*ldc+j:], w), first(c[i1*ldc+j:], w), first(c[i2*ldc+j:], w), first(c[i3*ldc+j:], w))
		}
	}
}

// widenRows writes rows [lo, lo+m) of r, bf16 or f16, to dst.
func (o *ops) widenRows(r Rows, lo, m int, dst []float32) {
	src := r.U16[lo*r.Dim : (lo+m)*r.Dim]
	pieces(len(src), func(at, n int) { o.widen[r.DType](&dst[at], &src[at], n) })
}

// addTile accounts for tokens whose logits are given and whose values are
// rows ids[i] of v, or rows lo+i where ids is nil; the logits are replaced by
// weights. It reports false, having done nothing, when no logit is above
// -Inf.
func (o *ops) addTile(p *Partial, logits []float32, v Rows, lo int, ids []uint32) bool {
	m := max(p.Max, o.maxOf(&logits[0], len(logits)))
	if m < -math.MaxFloat32 {
		return false
	}
	p.raise(m)
	p.Sum += o.expSum(&logits[0], len(logits), m)
	if ids == nil {
		o.weighted[v.DType](&logits[0], v.from(lo, len(logits)), nil, len(logits), v.Dim, first(p.Acc, v.Dim))
	} else {
		base := v.from(0, v.N)
		o.listed(v, base, ids, func(lo, n int) {
			o.weightedList[v.DType](&logits[lo], base, &ids[lo], n, v.Dim, first(p.Acc, v.Dim))
		})
	}
	return true
}

func (o *ops) attendList(q []float32, keys, values Rows, ids []uint32, bias []float32, scale float32, p *Partial, scratch []float32) {
	values.listed(ids) // checks
	for lo := 0; lo < len(ids); lo += len(scratch) {
		block := ids[lo:min(lo+len(scratch), len(ids))]
		logits := scratch[:len(block)]
		o.scoreList([][]float32{q}, keys, block, [][]float32{logits})
		o.scale(scale, &logits[0], len(logits))
		if bias != nil {
			o.axpy(1, first(bias[lo:], len(block)), &logits[0], len(block))
		}
		if !o.addTile(p, logits, values, 0, block) {
			for _, l := range logits {
				if l != l {
					p.Sum += l // as Add does: an undefined logit spoils the softmax
				}
			}
		}
	}
}

// pieces calls f with the bounds of pieces of a vector of length n.
func pieces(n int, f func(lo, n int)) {
	for lo := 0; lo < n; lo += callElements {
		f(lo, min(callElements, n-lo))
	}
}
