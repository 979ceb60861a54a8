package kernel

import (
	"math"
	"testing"
)

// TestHalf checks every binary16 value against the definition.
func TestHalf(t *testing.T) {
	for h := 0; h < 1<<16; h++ {
		exp, frac := h>>10&0x1f, float64(h&0x3ff)
		var want float64
		switch exp {
		case 0:
			want = math.Ldexp(frac, -24)
		case 0x1f:
			want = math.Inf(1)
			if frac != 0 {
				want = math.NaN()
			}
		default:
			want = math.Ldexp(1024+frac, exp-25)
		}
		if h>>15 == 1 {
			want = -want
		}
		got := F16ToF32(uint16(h))
		if math.IsNaN(want) {
			if got == got {
				t.Fatalf("%04x: %v, want NaN", h, got)
			}
		} else if got != float32(want) || math.Signbit(float64(got)) != (h>>15 == 1) {
			t.Fatalf("%04x: %v, want %v", h, got, want)
		}
	}
}
