package kernel

import (
	"slices"
	"strings"
	"testing"
)

// atEveryLevel runs f with the kernels of every level there is, and skips by
// name those that this CPU lacks.
func atEveryLevel(t *testing.T, f func(t *testing.T)) {
	for _, name := range levelNames {
		t.Run(name, func(t *testing.T) {
			use(t, name)
			f(t)
		})
	}
}

// use switches the kernels for the duration of a test.
func use(t testing.TB, name string) {
	i := slices.IndexFunc(levels, func(l level) bool { return l.name == name })
	if i < 0 {
		t.Skipf("this CPU does not run level %s", name)
	}
	before := active
	active = levels[i].ops
	t.Cleanup(func() { active = before })
}

func TestChooseLevel(t *testing.T) {
	some := []level{{name: "generic"}, {name: "avx2"}}
	for _, c := range []struct{ name, want, note string }{
		{"", "avx2", ""},
		{"generic", "generic", ""},
		{"avx2", "avx2", ""},
		{"avx512", "avx2", "RA_KERNEL=avx512: this CPU does not run that level; using avx2"},
		{"neon", "avx2", "RA_KERNEL=neon: this CPU does not run that level; using avx2"},
		{"sse", "avx2", "no such level (there are generic, avx2, avx512, avx512vnni, neon, neondot); using avx2"},
	} {
		got, note := choose(some, c.name)
		if got.name != c.want || !strings.Contains(note, c.note) || (note == "") != (c.note == "") {
			t.Errorf("%q: level %s, note %q", c.name, got.name, note)
		}
	}
	if l, note := choose(some[:1], "avx2"); l.name != "generic" || note == "" {
		t.Errorf("a CPU without vectors: %s, %q", l.name, note)
	}
	if !slices.Contains(levelNames, Level()) || current.ops != active {
		t.Errorf("the level in use is %q", Level())
	}
}
