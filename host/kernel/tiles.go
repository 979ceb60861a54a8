package kernel

import "unsafe"

// tileOps are a level's forms of the parts of matrix products. A product is
// made of tiles of results that stay in registers along the whole sum. One
// operand is read element by element and broadcast, as it is stored; the
// other is read in vectors across its rows, for which it is packed into
// panels: columns rows of f32, transposed, so that element s of row r is at
// s*columns+r. The levels without tiles have the zero value.
type tileOps struct {
	rows, columns int        // of the largest tile
	packed        int        // rows of a from which packing the other operand pays
	mul           []tileFunc // by rows-1
	top, topBF16  tileTopFunc
	pack          [3]panelFunc  // by dtype
	few           [3][3]fewFunc // by dtype; 1, 2 and 4 vectors
	mix           [3][3]mixFunc
	narrow        func(dst *uint16, src *float32, n int) // beside topBF16
	softmax       func(x *float32, n int, least float32) (most, sum float32)
}

type (
	// tileFunc computes a tile of c = a . b, or adds it to c. lda, ldb and
	// ldc are the bytes between rows.
	tileFunc = func(a *float32, lda int, b *float32, ldb, k int, c *float32, ldc, add int)
	// tileTopFunc computes a tile of inner products with a panel and writes
	// those rows of it that have a product above the row's least.
	tileTopFunc = func(a *float32, lda int, b *float32, k int, least, scores *float32, hits *uint32) uint32
	// panelFunc transposes columns/2 rows, n elements each.
	panelFunc = func(dst *float32, rows *byte, stride, n int)
	// fewFunc writes oj[streams*i+r] = qj . the row at i*step+r*stride, for i <
	// n and r < streams.
	fewFunc = func(q0, q1, q2, q3 *float32, rows *byte, stride, step, n, dim int, o0, o1, o2, o3 *float32)
	// mixFunc adds the sum of wj[streams*i+r] * the row at i*step+r*stride, for
	// i < n and r < streams, to accj.
	mixFunc = func(w0, w1, w2, w3 *float32, rows *byte, stride, step, n, dim int, acc0, acc1, acc2, acc3 *float32)
)

// streams is how many rows that lie apart fewFunc and mixFunc read at once:
// the hardware foresees several streams of memory, each at its own pace, and
// together they are faster than one.
const streams = 4

// maxTileRows and maxTile are the most rows, and results, that a tile of any
// level has.
const (
	maxTileRows = 12
	maxTile     = maxTileRows * 32
)

// panels returns n rounded up to whole panels.
func (t *tileOps) panels(n int) int { return (n + t.columns - 1) / t.columns * t.columns }

// heights cuts n rows into tiles of about equal height, none above t.rows,
// and returns that height: few rows in a tile leave the multipliers idle.
func (t *tileOps) heights(n int) int {
	tiles := (n + t.rows - 1) / t.rows
	return (n + tiles - 1) / tiles
}

// packRows writes elements [k, k+n) of rows [lo, lo+m) of r to panels of n
// elements each. The columns of a last panel that have no row keep what they
// hold: no result that depends on them is used.
func (t *tileOps) packRows(dst []float32, r Rows, lo, m, k, n int) {
	half := t.columns / 2
	block, size := half, r.DType.Size()
	if r.DType == BF16 {
		block *= 2
	}
	_ = dst[:t.panels(m)*n]
	for j := 0; j < m; j += half {
		to := dst[j/t.columns*t.columns*n+j%t.columns:]
		if j+half <= m && n >= block {
			base := unsafe.Add(unsafe.Pointer(r.from(lo+j, half)), k*size)
			t.pack[r.DType](&to[0], (*byte)(base), r.Dim*size, n)
			continue
		}
		for i := range min(half, m-j) {
			at := (lo+j+i)*r.Dim + k
			switch r.DType {
			case F32:
				for s, v := range r.F32[at : at+n] {
					to[s*t.columns+i] = v
				}
			case BF16:
				for s, v := range r.U16[at : at+n] {
					to[s*t.columns+i] = bf16ToF32(v)
				}
			default:
				for s, v := range r.U16[at : at+n] {
					to[s*t.columns+i] = F16ToF32(v)
				}
			}
		}
	}
}

// product computes c[i*ldc+j] = the sum over s < k of a[i*lda+s] times
// element s of packed row j, for up to t.rows rows of a and m packed rows, or
// adds it to c. spare has [maxTile] f32.
func (t *tileOps) product(a []float32, lda, rows int, packed []float32, k, m int, c []float32, ldc int, add bool, spare []float32) {
	f, flag := t.mul[rows-1], 0
	if add {
		flag = 1
	}
	_ = a[(rows-1)*lda+k-1]
	j := 0
	for ; j+t.columns <= m; j += t.columns {
		_ = c[(rows-1)*ldc+j+t.columns-1]
		f(&a[0], 4*lda, &packed[j*k], 4*t.columns, k, &c[j], 4*ldc, flag)
	}
	if j == m {
		return
	}
	f(&a[0], 4*lda, &packed[j*k], 4*t.columns, k, &spare[0], 4*t.columns, 0)
	for i := range rows {
		to := c[i*ldc+j : i*ldc+m]
		for x, v := range spare[i*t.columns:][:m-j] {
			if add {
				v += to[x]
			}
			to[x] = v
		}
	}
}
