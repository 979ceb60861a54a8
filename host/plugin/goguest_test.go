package plugin

import (
	"bytes"
	"errors"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/retrieval"
)

// TestGoGuest runs a standard Go guest that misbehaves in many ways.
func TestGoGuest(t *testing.T) {
	module := compileGuest(t, "goguest")
	call := newCall(small, 1, newView(t, small, 1))
	var want retrieval.Result
	if err := retrieval.NewFlat(compute.NewCPU()).Search(t.Context(), call, &want); err != nil {
		t.Fatal(err)
	}
	run := func(o Options, mode string, times int) (p *Plugin, log string, err error) {
		var buf bytes.Buffer
		o.Bytes, o.Params, o.Instances = module, map[string]any{"mode": mode}, 1
		o.Logger = slog.New(slog.NewTextHandler(&buf, nil))
		p = load(t, o)
		var res retrieval.Result
		for range times {
			if err = p.Search(t.Context(), call, &res); err != nil {
				break
			}
		}
		return p, buf.String(), err
	}

	failures := map[string]struct {
		limits Limits
		kind   error
		text   string // a regular expression behind "step 7: "
	}{
		"sleep":    {Limits{}, ErrCapability, `^not permitted: poll_oneoff: plugin tried to sleep for \d+ ns; a search has no time to wait$`},
		"panic":    {Limits{}, ErrTrap, `^trap: ra_search: unreachable; it wrote "panic: out of ideas"$`},
		"index":    {Limits{}, ErrTrap, `^trap: ra_search: unreachable; it wrote "panic: runtime error: index out of range \[4\] with length 1"$`},
		"recurse":  {Limits{Fuel: 1e6}, ErrFuel, `^out of fuel: ra_search used its 1000000 units of fuel; raise limits.fuel or mark the plugin trusted$`},
		"allocate": {Limits{MemoryMiB: 64}, ErrTrap, `^trap: ra_search: unreachable; it had asked for 65 MiB of memory, more than limits.memory_mib = 64; it wrote "runtime: out of memory: .* fatal error: out of memory"$`},
		"deadlock": {Limits{}, ErrTrap, `^trap: ra_search: unreachable; it wrote "fatal error: all goroutines are asleep - deadlock!"$`},
		"loop":     {Limits{Fuel: 1e6}, ErrFuel, `^out of fuel: `},
		"error":    {Limits{}, ErrGuest, `^plugin failed: index 7 is missing; rebuild it$`},
	}
	for mode, c := range failures {
		t.Run(mode, func(t *testing.T) {
			_, _, err := run(Options{Limits: c.limits}, mode, 1)
			if err == nil || c.kind != nil && !errors.Is(err, c.kind) {
				t.Fatalf("got %v, want one that is %q", err, c.kind)
			}
			text := strings.TrimPrefix(errorText(err), "plugin goguest: search layer 1 step 7: ")
			if !regexp.MustCompile(c.text).MatchString(text) {
				t.Errorf("got\n%s\nwant\n%s", text, c.text)
			}
			p, log, err := run(Options{Limits: c.limits, OnFailure: Fallback}, mode, 3)
			if err != nil {
				t.Fatal(err)
			}
			if s := p.Stats(); s.Fallbacks != 3 || s.Failures != 3 {
				t.Errorf("counted %+v", s)
			}
			if strings.Count(log, "search answered by exact search") != 1 {
				t.Errorf("got the log %s", log)
			}
			var res retrieval.Result
			if err := p.Search(t.Context(), call, &res); err != nil {
				t.Fatal(err)
			}
			sameHits(t, &res, &want)
		})
	}

	t.Run("read", func(t *testing.T) {
		if _, _, err := run(Options{}, "read", 3); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("log", func(t *testing.T) {
		_, log, err := run(Options{}, "log", 1)
		if err != nil || !strings.Contains(log, "level=WARN msg=careful plugin=goguest") || !strings.Contains(log, "level=INFO msg=printed plugin=goguest") {
			t.Fatalf("%v, log %s", err, log)
		}
	})
	t.Run("random", func(t *testing.T) {
		// Go seeds its generator once an instance, so instances agree.
		_, a, err := run(Options{Seed: 5}, "random", 2)
		_, b, err2 := run(Options{Seed: 5}, "random", 2)
		numbers := regexp.MustCompile(`msg=(\d+)`)
		if err != nil || err2 != nil || len(numbers.FindAllString(a, -1)) != 2 || !slices.Equal(numbers.FindAllString(a, -1), numbers.FindAllString(b, -1)) {
			t.Fatalf("%v, %v: %s against %s", err, err2, a, b)
		}
	})
	t.Run("garbage", func(t *testing.T) {
		p, _, err := run(Options{}, "garbage", 1100)
		if err != nil {
			t.Fatal(err)
		}
		warm := p.Stats().MemoryBytes
		var res retrieval.Result
		for range 4000 {
			if err := p.Search(t.Context(), call, &res); err != nil {
				t.Fatal(err)
			}
		}
		if now := p.Stats().MemoryBytes; now > warm+1<<20 {
			t.Fatalf("the memory of a guest that allocates 100 KB a call grew from %d to %d bytes", warm, now)
		}
	})
}
