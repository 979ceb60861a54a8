// Command go-policy is a placement policy in one file: the first tokens and a
// window stay static, tokens up to a horizon behind the window are indexed,
// and older ones are dropped.
package main

import ra "github.com/retrievalattention/ra/sdk/go"

// horizon keeps nothing but its parameters.
type horizon struct{ sink, window, horizon int }

func init() {
	ra.RegisterPolicy(ra.Description{
		Name:    "go-policy",
		Version: "1.0.0",
		Doc:     "static sink and window, an indexed stretch behind the window, the rest dropped",
		Parameters: []ra.Parameter{
			{Name: "sink", Type: "int", Min: 0, Max: 1 << 20, Default: 128, Doc: "first tokens that stay static"},
			{Name: "window", Type: "int", Min: 1, Max: 1 << 20, Default: 512, Doc: "last tokens that stay static"},
			{Name: "horizon", Type: "int", Min: 0, Max: 1 << 30, Default: 65536, Doc: "tokens before the window that can be found"},
		},
	}, &horizon{})
}

func main() {}

// Configure takes the parameters.
func (h *horizon) Configure(p ra.Params) error {
	h.sink, h.window, h.horizon = p.Int("sink"), p.Int("window"), p.Int("horizon")
	return nil
}

// Place moves what has left the window, and what has left the horizon.
func (h *horizon) Place(int) error {
	window := ra.PlaceInfo().Tokens - h.window
	old := max(window-h.horizon, h.sink)
	h.each(ra.Static, h.sink, old, ra.Dropped)
	h.each(ra.Static, old, window, ra.Indexed)
	h.each(ra.Indexed, h.sink, old, ra.Dropped)
	return nil
}

// each gives the tokens of [lo, hi) that are in one state another.
func (h *horizon) each(from ra.State, lo, hi int, to ra.State) {
	ranges := make([]ra.Range, ra.StateRanges(from, nil))
	ra.StateRanges(from, ranges)
	for _, r := range ranges {
		if a, b := max(lo, int(r.Lo)), min(hi, int(r.Hi)); a < b {
			ra.Place(to, a, b)
		}
	}
}
