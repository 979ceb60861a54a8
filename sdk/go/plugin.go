package ra

import (
	"strconv"
	"strings"

	abi "github.com/retrievalattention/ra/sdk/abi/v1"
)

// Search is a search plugin.
type Search interface {
	// Configure takes the parameters, once, before anything else.
	Configure(p Params) error
	// Build prepares the search of one KV head of a layer. The store of
	// sequence 0 is readable.
	Build(layer, kvHead int) error
	// Append makes positions [lo, hi), indexed a moment ago, findable.
	Append(layer, kvHead, lo, hi int) error
	// Search emits hits for every query of the call's KV heads. c is valid
	// until Search returns.
	Search(c *Call) error
}

// Weigher is implemented by search plugins that set the biases of what they
// emitted once its logits are known: with [ReadHits] and [EmitBias], for every
// query of the call.
type Weigher interface {
	Weigh(c *Call) error
}

// Policy is a placement policy.
type Policy interface {
	// Configure takes the parameters, once, before anything else.
	Configure(p Params) error
	// Place moves tokens of one layer with [Place].
	Place(layer int) error
}

// NoIndex is embedded by plugins without parameters or an index.
type NoIndex struct{}

// Configure does nothing.
func (NoIndex) Configure(Params) error { return nil }

// Build does nothing.
func (NoIndex) Build(_, _ int) error { return nil }

// Append does nothing.
func (NoIndex) Append(_, _, _, _ int) error { return nil }

// Description is what a plugin says about itself.
type Description struct {
	Name       string // lower-case letters, digits, - and _
	Version    string
	Doc        string // one line
	Parameters []Parameter
	// PrefillQueries asks for the prefill's queries during Build. They take
	// memory: 2 GiB a layer for 128K tokens of an 8B model.
	PrefillQueries bool
}

// Parameter declares a setting. Default has the Go type of Type: int,
// float64, bool or string.
type Parameter struct {
	Name     string
	Type     string  // "int", "float", "bool" or "string"
	Min, Max float64 // bounds of a number; none when both are 0
	Values   []string
	Default  any
	Doc      string // one line: meaning and unit
}

// What was registered: a search plugin or a policy.
var (
	description Description
	plugin      Search
	policy      Policy
)

// Register names the search plugin. Call it once, from an init function.
func Register(d Description, s Search) { description, plugin = d, s }

// RegisterPolicy names the placement policy. Call it once, from an init
// function, in place of Register.
func RegisterPolicy(d Description, p Policy) { description, policy = d, p }

// kind and needs are what the description says beside what its author wrote.
func kind() string {
	if policy != nil {
		return abi.KindPolicy
	}
	return abi.KindSearch
}

func (d *Description) needs() (list []string) {
	if d.PrefillQueries {
		list = append(list, abi.NeedPrefillQueries)
	}
	if _, ok := plugin.(Weigher); ok {
		list = append(list, abi.NeedWeigh)
	}
	return list
}

// JSON returns the description as ra_describe gives it to the host.
func (d *Description) JSON() string {
	var b strings.Builder
	b.WriteString(`{"name":` + quote(d.Name) + `,"version":` + quote(d.Version) + `,"kind":` + quote(kind()))
	b.WriteString(`,"doc":` + quote(d.Doc) + `,"features":[],"needs":`)
	quoteList(&b, d.needs())
	b.WriteString(`,"parameters":[`)
	for i := range d.Parameters {
		if i > 0 {
			b.WriteByte(',')
		}
		d.Parameters[i].json(&b)
	}
	b.WriteString("]}")
	return b.String()
}

func (p *Parameter) json(b *strings.Builder) {
	b.WriteString(`{"name":` + quote(p.Name) + `,"type":` + quote(p.Type))
	if p.Min != 0 || p.Max != 0 {
		b.WriteString(`,"min":` + float(p.Min) + `,"max":` + float(p.Max))
	}
	if len(p.Values) > 0 {
		b.WriteString(`,"values":`)
		quoteList(b, p.Values)
	}
	b.WriteString(`,"default":`)
	switch v := p.Default.(type) {
	case int:
		b.WriteString(strconv.Itoa(v))
	case float64:
		b.WriteString(float(v))
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case string:
		b.WriteString(quote(v))
	default:
		b.WriteString("null")
	}
	b.WriteString(`,"doc":` + quote(p.Doc) + `}`)
}

func float(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func quoteList(b *strings.Builder, list []string) {
	b.WriteByte('[')
	for i, s := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(quote(s))
	}
	b.WriteByte(']')
}

// quote makes a JSON string. encoding/json would add a third to a module.
func quote(s string) string {
	b := []byte{'"'}
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < 0x20:
			b = append(b, `\u00`...)
			b = append(b, "0123456789abcdef"[r>>4], "0123456789abcdef"[r&15])
		default:
			b = append(b, string(r)...)
		}
	}
	return string(append(b, '"'))
}

// Params are the plugin's parameters, all present and checked by the host
// against what the plugin declared. Asking for one that was not declared
// panics.
type Params struct{ text string }

// ParseParams reads lines of the form name=value, as the host sends them.
func ParseParams(text string) Params { return Params{text} }

// String returns a parameter as text.
func (p Params) String(name string) string {
	for line := range strings.Lines(p.text) {
		if n, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok && n == name {
			return v
		}
	}
	panic("parameter " + name + " is not declared")
}

// Int returns a parameter of type "int".
func (p Params) Int(name string) int { return parsed(strconv.Atoi(p.String(name))) }

// Float returns a parameter of type "float" or "int".
func (p Params) Float(name string) float64 { return parsed(strconv.ParseFloat(p.String(name), 64)) }

// Bool returns a parameter of type "bool".
func (p Params) Bool(name string) bool { return parsed(strconv.ParseBool(p.String(name))) }

func parsed[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
