package kernel

// tileRows is how many rows of the stored operand are widened at once: with
// 128 columns a tile is 32 KiB of f32, about one first-level cache.
const tileRows = 64

// A product is formed in blocks of breadth packed rows of w and depth columns,
// so that a block stays in the second-level cache while the rows of a pass
// over it, and depth columns of a tile's rows of a in the first.
const (
	breadth = 256
	depth   = 512
)

// GEMMScratch is the number of f32 that [MatMul] needs as scratch for rows of
// dimension dim.
func GEMMScratch(dim int) int {
	if active == nil {
		return tileRows * dim
	}
	return (breadth+maxTileRows)*depth + maxTile
}

// MatMul computes c[i][j] = a[i] . w[j] for the n rows of a (n x w.Dim) and
// rows [lo, hi) of w: a linear layer with w stored output-major, as in model
// files. c has ldc columns; column j of the result is written at j-lo, so
// that workers can split the outputs. scratch has [GEMMScratch](w.Dim) f32.
//
// A few rows of a stream w from memory; for more of them it is packed, block
// by block, for tiles of results in registers. The two forms round
// differently; within each a result does not depend on how the outputs are
// split.
func MatMul(a []float32, n int, w Rows, lo, hi int, c []float32, ldc int, scratch []float32) {
	if active != nil && w.Dim > 0 {
		if n < active.tiles.packed {
			active.mulFew(a, n, w, lo, hi, c, ldc, scratch)
		} else {
			active.tiles.matMul(a, n, w, lo, hi, c, ldc, scratch)
		}
		return
	}
	for j := lo; j < hi; j += tileRows {
		m := min(tileRows, hi-j)
		mulNT(a, n, widenTile(w, j, m, scratch), 0, m, c[j-lo:], ldc)
	}
}

// matMul is [MatMul] in tiles, in the order of GotoBLAS (Goto and van de
// Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008).
func (t *tileOps) matMul(a []float32, n int, w Rows, lo, hi int, c []float32, ldc int, scratch []float32) {
	d := w.Dim
	packed, rest := scratch[:breadth*depth], scratch[breadth*depth:]
	block, spare := rest[:maxTileRows*depth], rest[maxTileRows*depth:][:maxTile]
	height := t.heights(n)
	for j := lo; j < hi; j += breadth {
		m := min(breadth, hi-j)
		for k := 0; k < d; k += depth {
			kd := min(depth, d-k)
			t.packRows(packed, w, j, m, k, kd)
			for i := 0; i < n; i += height {
				rows := min(height, n-i)
				x, ldx := a[i*d:], d
				if d > depth {
					// Rows far apart, at powers of two even, share few sets
					// of the cache.
					for r := range rows {
						copy(block[r*kd:(r+1)*kd], x[r*d+k:])
					}
					x, ldx = block, kd
				}
				t.product(x, ldx, rows, packed, kd, m, c[i*ldc+j-lo:], ldc, k > 0, spare)
			}
		}
	}
}

// fewBytes is how many bytes of rows meet all of a few rows before the next
// ones: the streams through them lie far enough apart for the hardware to
// follow each, and the second-level cache holds them for the next rows.
const fewBytes = 256 << 10

// mulFew is [MatMul] for a few rows: w comes from memory, once.
func (o *ops) mulFew(a []float32, n int, w Rows, lo, hi int, c []float32, ldc int, scratch []float32) {
	step := min(max(fewBytes/w.rowBytes()&^3, 4), breadth*depth/4) // the results of four rows fit scratch
	for j := lo; j < hi; j += step {
		m := min(step, hi-j)
		each := m / streams
		for i := 0; i < n; i += 4 {
			x, rows := a[i*w.Dim:], min(4, n-i)
			if each > 0 {
				o.few(x, rows, w, j, each, each, scratch, m)
			}
			for r := range rows {
				from, to := scratch[r*m:], c[(i+r)*ldc+j-lo:]
				for s := range streams {
					for y := range each {
						to[s*each+y] = from[y*streams+s]
					}
				}
			}
			if rest := m % streams; rest > 0 {
				o.mulNT(x, rows, w, j+m-rest, rest, c[i*ldc+j-lo+m-rest:], ldc)
			}
		}
	}
}

// few computes c[i*ldc+streams*j+s] = a[i] . b[lo+s*apart+j] for the n rows of
// a, up to four, j < each and s < streams.
func (o *ops) few(a []float32, n int, b Rows, lo, apart, each int, c []float32, ldc int) {
	// A row that is missing is the last one again, which is written twice.
	d, size, last := b.Dim, b.rowBytes(), n-1
	i1, i2, i3 := min(1, last), min(2, last), min(3, last)
	o.tiles.few[b.DType][min(last, 2)](
		first(a, d), first(a[i1*d:], d), first(a[i2*d:], d), first(a[i3*d:], d),
		b.from(lo, (streams-1)*apart+each), apart*size, size, each, d,
		first(c, streams*each), first(c[i1*ldc:], streams*each), first(c[i2*ldc:], streams*each), first(c[i3*ldc:], streams*each))
}

// widenTile returns rows [lo, lo+m) as f32 rows, in place when they are f32:
// what the portable forms multiply.
func widenTile(r Rows, lo, m int, scratch []float32) Rows {
	if r.DType == F32 {
		return r.Slice(lo, lo+m)
	}
	t := Rows{Dim: r.Dim, N: m, F32: scratch[:m*r.Dim]}
	for i := range m {
		r.Widen(lo+i, t.F32[i*r.Dim:(i+1)*r.Dim])
	}
	return t
}

// mulNT computes c[i*ldc+j] = a[i] . b[lo+j] for the n rows of a and m rows of
// b, which must be f32 unless a vector level is active.
func mulNT(a []float32, n int, b Rows, lo, m int, c []float32, ldc int) {
	if active != nil && b.Dim > 0 {
		active.mulNT(a, n, b, lo, m, c, ldc)
		return
	}
	mulTiles(a, n, b.F32[lo*b.Dim:(lo+m)*b.Dim], m, b.Dim, c, ldc)
}

// mulTiles computes c[i*ldc+j] = a[i] . b[j] for an n x d and an m x d matrix
// in register tiles of 2 x 4.
func mulTiles(a []float32, n int, b []float32, m, d int, c []float32, ldc int) {
	i := 0
	for ; i+2 <= n; i += 2 {
		a0, a1 := a[i*d:(i+1)*d], a[(i+1)*d:(i+2)*d]
		c0, c1 := c[i*ldc:i*ldc+m], c[(i+1)*ldc:(i+1)*ldc+m]
		j := 0
		for ; j+4 <= m; j += 4 {
			dot2x4(a0, a1, b[j*d:(j+4)*d], (*[4]float32)(c0[j:]), (*[4]float32)(c1[j:]))
		}
		for ; j < m; j++ {
			row := b[j*d : (j+1)*d]
			c0[j], c1[j] = Dot(a0, row), Dot(a1, row)
		}
	}
	if i < n {
		a0, c0 := a[i*d:(i+1)*d], c[i*ldc:i*ldc+m]
		for j := range m {
			c0[j] = Dot(a0, b[j*d:(j+1)*d])
		}
	}
}

// dot2x4 writes the inner products of two vectors with the four rows of b.
func dot2x4(a0, a1, b []float32, r0, r1 *[4]float32) {
	d := len(a0)
	a1 = a1[:d]
	b0, b1, b2, b3 := b[:d], b[d:][:d], b[2*d:][:d], b[3*d:][:d]
	var s00, s01, s02, s03, s10, s11, s12, s13 float32
	for k, x := range a0 {
		y := a1[k]
		w := b0[k]
		s00 += x * w
		s10 += y * w
		w = b1[k]
		s01 += x * w
		s11 += y * w
		w = b2[k]
		s02 += x * w
		s12 += y * w
		w = b3[k]
		s03 += x * w
		s13 += y * w
	}
	*r0 = [4]float32{s00, s01, s02, s03}
	*r1 = [4]float32{s10, s11, s12, s13}
}

// addWeighted adds the weighted sum of the m rows of v (m x len(acc)) to acc,
// four rows at a time so that acc is loaded and stored once for the four.
func addWeighted(p []float32, v []float32, acc []float32) {
	d := len(acc)
	i := 0
	for ; i+4 <= len(p); i += 4 {
		p0, p1, p2, p3 := p[i], p[i+1], p[i+2], p[i+3]
		if p0 == 0 && p1 == 0 && p2 == 0 && p3 == 0 {
			continue
		}
		v0, v1, v2, v3 := v[i*d:][:d], v[(i+1)*d:][:d], v[(i+2)*d:][:d], v[(i+3)*d:][:d]
		for k := range acc {
			acc[k] += p0*v0[k] + p1*v1[k] + p2*v2[k] + p3*v3[k]
		}
	}
	for ; i < len(p); i++ {
		axpy(p[i], v[i*d:(i+1)*d], acc)
	}
}
