package plugin

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"

	abi "github.com/retrievalattention/ra/sdk/abi/v1"
)

// Description is what a plugin says about itself.
type Description struct {
	Name       string      `json:"name"`
	Version    string      `json:"version"`
	Kind       string      `json:"kind"`
	Doc        string      `json:"doc,omitempty"`
	Features   []string    `json:"features"`
	Needs      []string    `json:"needs,omitempty"`
	Parameters []Parameter `json:"parameters"`
}

// Parameter is one setting of a plugin. Min and Max bound numbers, Values
// lists what a string may be; all are optional.
type Parameter struct {
	Name    string   `json:"name"`
	Type    string   `json:"type"` // "int", "float", "bool", "string"
	Min     *float64 `json:"min,omitempty"`
	Max     *float64 `json:"max,omitempty"`
	Values  []string `json:"values,omitempty"`
	Default any      `json:"default"`
	Doc     string   `json:"doc,omitempty"`
}

// features that this host knows. Version 1 begins with none.
var features = []string{}

// needs that this host meets.
var needs = []string{abi.NeedPrefillQueries, abi.NeedWeigh}

var (
	pluginName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}$`)
	paramName  = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)
	// integers beyond this lose digits in JSON and in a guest's f64.
	maxInt = float64(1 << 53)
)

// parseDescription reads and checks the JSON of ra_describe.
func parseDescription(text []byte) (*Description, error) {
	d := &Description{}
	if err := json.Unmarshal(text, d); err != nil {
		return nil, fmt.Errorf("%w: ra_describe: %w", ErrABI, err)
	}
	if !pluginName.MatchString(d.Name) {
		return nil, fmt.Errorf("%w: ra_describe: name %q, want lower-case letters, digits, - and _", ErrABI, clip(d.Name, 64))
	}
	if d.Kind != abi.KindSearch && d.Kind != abi.KindPolicy {
		return nil, fmt.Errorf("%w: ra_describe: kind %q, want %q or %q", ErrABI, clip(d.Kind, 64), abi.KindSearch, abi.KindPolicy)
	}
	if d.Version == "" || len(d.Version) > 64 {
		return nil, fmt.Errorf("%w: ra_describe: version %q, want 1 to 64 characters", ErrABI, clip(d.Version, 64))
	}
	for _, f := range d.Features {
		if !slices.Contains(features, f) {
			return nil, fmt.Errorf("%w: the plugin needs the feature %q; this host has %q", ErrABI, clip(f, 64), features)
		}
	}
	for _, n := range d.Needs {
		if !slices.Contains(needs, n) {
			return nil, fmt.Errorf("%w: the plugin needs %q; this host has %q", ErrABI, clip(n, 64), needs)
		}
	}
	seen := map[string]bool{}
	for _, p := range d.Parameters {
		if !paramName.MatchString(p.Name) || seen[p.Name] {
			return nil, fmt.Errorf("%w: ra_describe: parameter name %q is malformed or used twice", ErrABI, clip(p.Name, 64))
		}
		seen[p.Name] = true
		if _, err := p.text(p.Default); err != nil {
			return nil, fmt.Errorf("%w: ra_describe: the default of %w", ErrABI, err)
		}
	}
	return d, nil
}

// text checks a value and returns it as params_read gives it to the guest.
func (p *Parameter) text(v any) (string, error) {
	wrong := func() (string, error) {
		return "", fmt.Errorf("%s is %#v (%T), want %s", p.Name, v, v, p.Want())
	}
	if s, ok := v.(string); ok {
		v = p.parse(s)
	}
	switch p.Type {
	case "int", "float":
		f, ok := number(v)
		if !ok || math.IsNaN(f) || math.IsInf(f, 0) || p.Type == "int" && (f != math.Trunc(f) || math.Abs(f) > maxInt) {
			return wrong()
		}
		if p.Min != nil && f < *p.Min || p.Max != nil && f > *p.Max {
			return wrong()
		}
		if p.Type == "int" {
			return strconv.FormatInt(int64(f), 10), nil
		}
		return strconv.FormatFloat(f, 'g', -1, 64), nil
	case "bool":
		if b, ok := v.(bool); ok {
			return strconv.FormatBool(b), nil
		}
	case "string":
		s, ok := v.(string)
		if ok && !strings.ContainsAny(s, "\n\r\x00") && (len(p.Values) == 0 || slices.Contains(p.Values, s)) {
			return s, nil
		}
	default:
		return "", fmt.Errorf("%s has the unknown type %q", p.Name, clip(p.Type, 64))
	}
	return wrong()
}

// parse reads text as the parameter's type; what cannot be read stays text.
func (p *Parameter) parse(s string) any {
	switch p.Type {
	case "int", "float":
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return n
		}
		if f, err := strconv.ParseFloat(s, 64); err == nil {
			return f
		}
	case "bool":
		if b, err := strconv.ParseBool(s); err == nil {
			return b
		}
	}
	return s
}

// Want describes the values that p takes.
func (p *Parameter) Want() string {
	s := map[string]string{"int": "an integer", "float": "a number", "bool": "true or false", "string": "a string of one line"}[p.Type]
	switch {
	case len(p.Values) > 0:
		s = fmt.Sprintf("one of %q", p.Values)
	case p.Min != nil && p.Max != nil:
		s += " from " + decimal(*p.Min) + " to " + decimal(*p.Max)
	case p.Min != nil:
		s += " of at least " + decimal(*p.Min)
	case p.Max != nil:
		s += " of at most " + decimal(*p.Max)
	}
	return s
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// number converts the numeric types that a decoder may give.
func number(v any) (float64, bool) {
	switch n := v.(type) {
	case int:
		return float64(n), true
	case int32:
		return float64(n), true
	case int64:
		return float64(n), true
	case uint32:
		return float64(n), true
	case uint64:
		return float64(n), true
	case float32:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}

// resolve checks values against the parameters and returns the text for
// params_read: a line "name=value" each, in the declared order, defaults
// filled in.
func (d *Description) resolve(values map[string]any) (string, error) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !slices.ContainsFunc(d.Parameters, func(p Parameter) bool { return p.Name == name }) {
			return "", &ParamError{name, fmt.Sprintf("%s has no parameter %q%s", d.Name, name, d.suggest(name))}
		}
	}
	var b strings.Builder
	for _, p := range d.Parameters {
		v, ok := values[p.Name]
		if !ok {
			v = p.Default
		}
		text, err := p.text(v)
		if err != nil {
			return "", &ParamError{p.Name, err.Error()}
		}
		b.WriteString(p.Name + "=" + text + "\n")
	}
	if b.Len() > abi.MaxParams {
		return "", fmt.Errorf("%w: %d bytes of parameters, at most %d are allowed", ErrParam, b.Len(), abi.MaxParams)
	}
	return b.String(), nil
}

// suggest names the parameter nearest to name, or lists what there is.
func (d *Description) suggest(name string) string {
	if len(d.Parameters) == 0 {
		return "; it has none"
	}
	names := make([]string, len(d.Parameters))
	for i, p := range d.Parameters {
		names[i] = p.Name
	}
	if n := nearest(name, names); n != "" {
		return meant(n)
	}
	return fmt.Sprintf("; it has %s", strings.Join(names, ", "))
}

// meant is the end of a message that suggests a name, if there is one.
func meant(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", name)
}

// nearest returns the candidate within a small edit distance of name, "" if
// there is none.
func nearest(name string, candidates []string) string {
	best, bestDistance := "", max(2, len(name)/3)+1
	for _, c := range candidates {
		if d := levenshtein.ComputeDistance(name, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// clip shortens text of the guest's for a message.
func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}
