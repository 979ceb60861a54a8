// Package kernel holds the arithmetic of the host: pure-Go kernels over
// row-major matrices.
//
// Kernels take lists, never pairs: a list of row ids or a range of rows,
// against one to [MaxQueries] queries at once, so that the query heads of a
// GQA group read every key once. Arithmetic is f32 whatever the rows are
// stored in (bf16, f16 or f32; rows are widened, queries are never rounded).
//
// Every function here is the portable form and therefore the oracle of any
// faster one. Shapes are the caller's duty: a kernel panics on a shape that
// cannot be, because only a bug in the host can produce one; what comes from
// users and plugins is checked before it gets here.
package kernel
