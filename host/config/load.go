package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/agnivade/levenshtein"

	"github.com/retrievalattention/ra/host/kernel"
)

// FileName is the file that is read from the working directory when no other
// is named.
const FileName = "raconfig.toml"

// Origin says where a value comes from.
type Origin string

// Origins, weakest first.
const (
	FromDefault Origin = "default"
	FromFile    Origin = "file"
	FromEnv     Origin = "environment"
	FromFlag    Origin = "flag"
)

// Source is what a configuration is resolved from.
type Source struct {
	// File is the configuration file. Empty means [FileName] in the working
	// directory, if it is there.
	File string
	// Environ is the environment, in the form of os.Environ.
	Environ []string
	// Flags maps key paths ("search.plugin", "search.params.bits") to values
	// in the spelling of the environment.
	Flags map[string]string
}

// Resolved is a valid configuration and where each value came from.
type Resolved struct {
	Config
	File string // the file that was read, empty for none
	// Ignored says of each environment variable that begins with RA_ but
	// sets no key which one may have been meant.
	Ignored []string
	origins map[string]Origin // by key path; absent means default
	text    string            // of the file
}

// Where says where a plugin's parameter, such as "policy.params.sink", was
// set: a line of the file, an environment variable or a flag; empty when
// nowhere.
func (r *Resolved) Where(key string) string {
	table, name, _ := strings.Cut(key, ".params.")
	switch _, ok := r.params(table)[name]; {
	case !ok:
		return ""
	case r.Origin(key) == FromEnv:
		return envName(key)
	case r.Origin(key) == FromFlag:
		return "flag for " + key
	}
	return fmt.Sprintf("%s:%d", r.File, keyLine(r.text, strings.Split(key, ".")))
}

// Origin returns where the value of a key path came from.
func (r *Resolved) Origin(key string) Origin {
	if o, ok := r.origins[key]; ok {
		return o
	}
	return FromDefault
}

// Load resolves a configuration. All errors wrap [ErrInvalid], except those
// of reading the file.
func Load(s Source) (*Resolved, error) {
	r := &Resolved{Config: Default(), origins: map[string]Origin{}}
	file, named := s.File, s.File != ""
	if !named {
		file = FileName
	}
	data, err := os.ReadFile(file)
	switch {
	case err == nil:
		if err := r.decode(file, string(data)); err != nil {
			return nil, err
		}
	case named || !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if err := r.setEnv(s.Environ); err != nil {
		return nil, err
	}
	for _, f := range r.fields() {
		if v, ok := s.Flags[f.key]; ok {
			if err := r.set(f, v, FromFlag); err != nil {
				return nil, fmt.Errorf("%w: flag for %s: %w", ErrInvalid, f.key, err)
			}
		}
	}
	for key, v := range s.Flags {
		if table, name, ok := strings.Cut(key, ".params."); ok {
			r.setParam(table, name, v, FromFlag)
		}
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return r, nil
}

// decode reads the file's text over the defaults.
func (r *Resolved) decode(file, text string) error {
	meta, err := toml.Decode(text, &r.Config)
	if err != nil {
		var pe toml.ParseError
		if errors.As(err, &pe) {
			return fmt.Errorf("%w: %s:%d: %s", ErrInvalid, file, pe.Position.Line, pe.Message)
		}
		return fmt.Errorf("%w: %s: %w", ErrInvalid, file, err)
	}
	var errs []error
	for _, key := range meta.Undecoded() {
		path := key.String()
		msg := fmt.Sprintf("%s:%d: unknown key %q", file, keyLine(text, key), path)
		if near := nearest(path, r.known()); near != "" {
			msg += fmt.Sprintf("; the nearest known key is %q", near)
		}
		errs = append(errs, fmt.Errorf("%w: %s", ErrInvalid, msg))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if !meta.IsDefined("version") {
		return fmt.Errorf("%w: %s: the key \"version\" is missing; write version = %d at the top", ErrInvalid, file, Version)
	}
	for _, f := range r.fields() {
		if meta.IsDefined(strings.Split(f.key, ".")...) {
			r.origins[f.key] = FromFile
		}
	}
	r.File, r.text = file, text
	r.Model.Path = relativeTo(file, r.Model.Path)
	for i := range r.Plugins {
		p := &r.Plugins[i]
		if p.Kind == "" {
			p.Kind = "search"
		}
		if p.Runtime == "" {
			p.Runtime = "wasm"
		}
		if p.OnFailure == "" {
			p.OnFailure = "fallback"
		}
		p.Path = relativeTo(file, p.Path)
	}
	return nil
}

// relativeTo resolves a path that the file names against the file's folder.
func relativeTo(file, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}

// field is one scalar key of the schema.
type field struct {
	key   string
	doc   string
	value reflect.Value
}

// fields returns the scalar keys in the order of the schema.
func (r *Resolved) fields() []field { return scalars("", reflect.ValueOf(&r.Config).Elem()) }

func scalars(prefix string, v reflect.Value) []field {
	var out []field
	for i := range v.NumField() {
		t := v.Type().Field(i)
		if !t.IsExported() {
			continue
		}
		key := prefix + t.Tag.Get("toml")
		switch t.Type.Kind() {
		case reflect.Struct:
			out = append(out, scalars(key+".", v.Field(i))...)
		case reflect.Map, reflect.Slice:
		default:
			out = append(out, field{key, t.Tag.Get("doc"), v.Field(i)})
		}
	}
	return out
}

// known returns every key path that a file may hold, params of plugins
// excepted.
func (r *Resolved) known() []string {
	var keys []string
	for _, f := range r.fields() {
		keys = append(keys, f.key)
	}
	for _, f := range scalars("plugin.", reflect.ValueOf(Plugin{})) {
		keys = append(keys, f.key)
	}
	keys = append(keys, "search.params", "policy.params", "plugin")
	for _, k := range keys {
		if i := strings.LastIndexByte(k, '.'); i > 0 {
			keys = append(keys, k[:i])
		}
	}
	sort.Strings(keys)
	return keys
}

func (r *Resolved) set(f field, text string, from Origin) error {
	var err error
	switch f.value.Kind() {
	case reflect.String:
		f.value.SetString(text)
	case reflect.Int:
		var n int64
		if n, err = strconv.ParseInt(text, 10, 64); err == nil {
			f.value.SetInt(n)
		}
	case reflect.Uint64:
		var n uint64
		if n, err = strconv.ParseUint(text, 10, 64); err == nil {
			f.value.SetUint(n)
		}
	case reflect.Float64:
		var x float64
		if x, err = strconv.ParseFloat(text, 64); err == nil {
			f.value.SetFloat(x)
		}
	case reflect.Bool:
		var b bool
		if b, err = strconv.ParseBool(text); err == nil {
			f.value.SetBool(b)
		}
	}
	if err != nil {
		return fmt.Errorf("%q is not a value of type %s", text, f.value.Kind())
	}
	r.origins[f.key] = from
	return nil
}

func envName(key string) string {
	return "RA_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// FileEnv is the environment variable that names the configuration file.
const FileEnv = "RA_CONFIG"

// setEnv applies the environment.
func (r *Resolved) setEnv(environ []string) error {
	fields := map[string]field{}
	names := []string{FileEnv, kernel.LevelEnv} // these set no key, and are no mistakes
	for _, f := range r.fields() {
		fields[envName(f.key)] = f
		names = append(names, envName(f.key))
	}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		f, known := fields[name]
		switch {
		case known:
			if err := r.set(f, value, FromEnv); err != nil {
				return fmt.Errorf("%w: environment variable %s: %w", ErrInvalid, name, err)
			}
		case r.setParamEnv(name, value):
		case strings.HasPrefix(name, "RA_") && name != FileEnv && name != kernel.LevelEnv:
			note := fmt.Sprintf("environment variable %s sets no key", name)
			if near := nearest(name, names); near != "" {
				note += "; the nearest that does is " + near
			}
			r.Ignored = append(r.Ignored, note)
		}
	}
	return nil
}

// setParamEnv sets a plugin's parameter by a name such as
// RA_SEARCH_PARAMS_BITS.
func (r *Resolved) setParamEnv(name, value string) bool {
	for _, table := range []string{"search", "policy"} {
		if key, ok := strings.CutPrefix(name, envName(table+".params")+"_"); ok && key != "" {
			r.setParam(table, strings.ToLower(key), value, FromEnv)
			return true
		}
	}
	return false
}

// setParam sets a parameter of the plugin that a table chooses. It stays
// text: the plugin's declaration says what type it has.
func (r *Resolved) setParam(table, name, value string, from Origin) {
	params := &r.Search.Params
	if table == "policy" {
		params = &r.Policy.Params
	}
	if *params == nil {
		*params = map[string]any{}
	}
	(*params)[name] = value
	r.origins[table+".params."+name] = from
}

// keyLine returns the line on which a key is written, or the line of the
// table that holds it when it stands in an inline table.
func keyLine(text string, key toml.Key) int {
	want := key.String()
	table, best := "", 1
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		var path string
		switch {
		case strings.HasPrefix(line, "["):
			end := strings.IndexByte(line, ']')
			if end < 0 {
				continue
			}
			table = squeeze(strings.TrimLeft(line[:end], "["))
			path = table
		case strings.HasPrefix(line, "#"):
			continue
		default:
			k, _, ok := strings.Cut(line, "=")
			if !ok {
				continue
			}
			path = squeeze(k)
			if table != "" {
				path = table + "." + path
			}
		}
		if path == want {
			return i + 1
		}
		if strings.HasPrefix(want, path+".") {
			best = i + 1
		}
	}
	return best
}

// squeeze drops the white space and quotes that TOML allows around the parts
// of a key.
func squeeze(key string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(" \t\"'", r) {
			return -1
		}
		return r
	}, key)
}

// nearest returns the known key with the least edit distance to key, or ""
// when none is near.
func nearest(key string, known []string) string {
	best, dist := "", len(key)/2+1
	for _, k := range known {
		if d := levenshtein.ComputeDistance(key, k); d < dist {
			best, dist = k, d
		}
	}
	return best
}

// Print returns the configuration as TOML, with each value's meaning and
// origin as a comment. The text is a valid configuration file.
func (r *Resolved) Print() string {
	var b strings.Builder
	table := ""
	for _, f := range r.fields() {
		dir, name := "", f.key
		if i := strings.LastIndexByte(f.key, '.'); i >= 0 {
			dir, name = f.key[:i], f.key[i+1:]
		}
		if dir != table {
			printParams(&b, table, r.params(table))
			fmt.Fprintf(&b, "\n[%s]\n", dir)
			table = dir
		}
		fmt.Fprintf(&b, "%s = %s  # %s (%s)\n", name, tomlValue(f.value.Interface()), f.doc, r.Origin(f.key))
	}
	for _, p := range r.Plugins {
		b.WriteString("\n[[plugin]]\n")
		inLimits := false
		for _, f := range scalars("", reflect.ValueOf(p)) {
			name, ok := strings.CutPrefix(f.key, "limits.")
			if ok && !inLimits {
				b.WriteString("[plugin.limits]\n")
				inLimits = true
			}
			fmt.Fprintf(&b, "%s = %s\n", name, tomlValue(f.value.Interface()))
		}
	}
	return b.String()
}

// params returns the parameters of the plugin that a table chooses.
func (r *Resolved) params(table string) map[string]any {
	switch table {
	case "search":
		return r.Search.Params
	case "policy":
		return r.Policy.Params
	}
	return nil
}

// printParams writes the table TABLE.params and those below it.
func printParams(b *strings.Builder, table string, params map[string]any) {
	if len(params) == 0 {
		return
	}
	text, err := toml.Marshal(map[string]any{table: map[string]any{"params": params}})
	if err != nil {
		fmt.Fprintf(b, "# %s.params cannot be written: %v\n", table, err)
		return
	}
	// The table itself is written already.
	fmt.Fprintf(b, "\n%s\n", strings.TrimSpace(strings.TrimPrefix(string(text), "["+table+"]\n")))
}

func tomlValue(v any) string {
	switch x := v.(type) {
	case string:
		text, err := toml.Marshal(map[string]string{"v": x})
		if err != nil {
			return strconv.Quote(x)
		}
		return strings.TrimSpace(strings.TrimPrefix(string(text), "v ="))
	case time.Duration:
		return strconv.Quote(x.String())
	case float64:
		s := strconv.FormatFloat(x, 'g', -1, 64)
		if !strings.ContainsAny(s, ".e") {
			s += ".0"
		}
		return s
	}
	return fmt.Sprint(v)
}
