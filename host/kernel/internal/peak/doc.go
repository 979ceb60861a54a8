// Package peak holds loops that do nothing but multiply and add on registers.
// Benchmarks of matrix products measure themselves against them.
package peak
