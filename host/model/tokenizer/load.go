package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// maxTokens bounds token ids, many times the largest public vocabularies.
const maxTokens = 1 << 24

// Load reads a tokenizer.json, of which nothing is kept but copies. Errors name the JSON path, and
// wrap ErrFormat or ErrUnsupported.
func Load(data []byte) (*Tokenizer, error) {
	t, err := load(data)
	if err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	return t, nil
}

// file is tokenizer.json. Every section that changes the tokens is here: an unknown one is
// refused.
type file struct {
	Version       json.RawMessage `json:"version"`
	Truncation    json.RawMessage `json:"truncation"`
	Padding       json.RawMessage `json:"padding"`
	AddedTokens   json.RawMessage `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         json.RawMessage `json:"model"`
}

type addedJSON struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

type modelJSON struct {
	Type       string           `json:"type"`
	Dropout    *float64         `json:"dropout"`
	UnkToken   *string          `json:"unk_token"`
	Prefix     *string          `json:"continuing_subword_prefix"`
	Suffix     *string          `json:"end_of_word_suffix"`
	FuseUnk    bool             `json:"fuse_unk"`
	Fallback   bool             `json:"byte_fallback"`
	IgnoreMerg bool             `json:"ignore_merges"`
	Vocab      map[string]int32 `json:"vocab"`
	Merges     json.RawMessage  `json:"merges"`
}

func formatErrorf(format string, args ...any) error {
	return fmt.Errorf(format+" (%w)", append(args, ErrFormat)...)
}

func unsupportedf(format string, args ...any) error {
	return fmt.Errorf(format+" (%w)", append(args, ErrUnsupported)...)
}

func null(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// clip bounds what a file can put into an error text.
func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "..."
	}
	return s
}

// decode unmarshals the value at a path and refuses fields that v does not have.
func decode(path string, raw []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	at := path
	if at != "" {
		at += ": "
	}
	var syn *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case err == nil:
		if rest := bytes.TrimSpace(raw[dec.InputOffset():]); len(rest) > 0 {
			return formatErrorf("%sbyte %d: text follows the JSON value", at, dec.InputOffset())
		}
		return nil
	case errors.As(err, &syn):
		return formatErrorf("%sbyte %d: %v", at, syn.Offset, err)
	case errors.As(err, &typ):
		if typ.Field != "" {
			if path != "" {
				path += "."
			}
			return formatErrorf("%s%s: found a %s where a %s belongs", path, clip(typ.Field), typ.Value, typ.Type)
		}
		return formatErrorf("%sfound a %s where a %s belongs", at, typ.Value, typ.Type)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return formatErrorf("%sbyte %d: the JSON ends too early; download the file again", at, len(raw))
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return unsupportedf("%sthe field %s is not supported", at, clip(name))
	}
	return formatErrorf("%s%v", at, err)
}

// stepType reads the type of a pipeline step.
func stepType(path string, raw json.RawMessage) (string, error) {
	var step struct {
		Type string `json:"type"`
	}
	if len(raw) == 0 || raw[0] != '{' {
		return "", formatErrorf("%s: must be an object", path)
	}
	if err := json.Unmarshal(raw, &step); err != nil {
		return "", formatErrorf("%s.type: must be a string", path)
	}
	if step.Type == "" {
		return "", formatErrorf("%s.type is missing", path)
	}
	return step.Type, nil
}

func load(data []byte) (*Tokenizer, error) {
	var f file
	if err := decode("", data, &f); err != nil {
		return nil, err
	}
	if !null(f.Version) && string(f.Version) != `"1.0"` {
		return nil, unsupportedf("version %s is not supported; supported: \"1.0\"", clip(string(f.Version)))
	}
	for _, s := range []struct {
		name string
		raw  json.RawMessage
	}{{"truncation", f.Truncation}, {"padding", f.Padding}} {
		if !null(s.raw) {
			return nil, unsupportedf("%s is not supported, since it would change prompts silently; set it to null", s.name)
		}
	}
	t := &Tokenizer{}
	if err := t.loadModel(f.Model); err != nil {
		return nil, err
	}
	if err := t.loadNormalizer(f.Normalizer); err != nil {
		return nil, err
	}
	if err := t.loadAdded(f.AddedTokens); err != nil {
		return nil, err
	}
	if err := t.loadPreTokenizer(f.PreTokenizer); err != nil {
		return nil, err
	}
	if err := t.loadPostProcessor("post_processor", f.PostProcessor); err != nil {
		return nil, err
	}
	if err := loadDecoder("decoder", f.Decoder); err != nil {
		return nil, err
	}
	classes() // built now, not in the first request
	return t, nil
}

func (t *Tokenizer) loadModel(raw json.RawMessage) error {
	if null(raw) {
		return formatErrorf("model is missing")
	}
	var kind struct {
		Type *string `json:"type"`
	}
	if err := json.Unmarshal(raw, &kind); err != nil {
		return formatErrorf("model: must be an object with a string as its type")
	}
	if kind.Type != nil && *kind.Type != "BPE" { // old files have no type
		return unsupportedf("model.type %q is not supported; supported: BPE", clip(*kind.Type))
	}
	var m modelJSON
	if err := decode("model", raw, &m); err != nil {
		return err
	}
	switch {
	case m.Dropout != nil:
		return unsupportedf("model.dropout %v is not supported; supported: null", *m.Dropout)
	case m.Prefix != nil && *m.Prefix != "":
		return unsupportedf("model.continuing_subword_prefix %q is not supported; supported: null", clip(*m.Prefix))
	case m.Suffix != nil && *m.Suffix != "":
		return unsupportedf("model.end_of_word_suffix %q is not supported; supported: null", clip(*m.Suffix))
	case m.Fallback:
		return unsupportedf("model.byte_fallback true is not supported; supported: false")
	case len(m.Vocab) == 0:
		return formatErrorf("model.vocab is missing or empty")
	}
	t.ids = m.Vocab
	if err := t.index(m.Vocab); err != nil {
		return err
	}
	if m.IgnoreMerg {
		t.model.words = make(map[string]int32, len(m.Vocab))
	}
	for name, id := range m.Vocab {
		text, ok := unmap(name)
		if !ok {
			t.texts[id] = name // decodes to itself, as in the reference, and is never encoded
			continue
		}
		t.texts[id] = text
		if m.IgnoreMerg {
			t.model.words[text] = id
		}
	}
	complete := true
	for b := range 256 {
		id, ok := m.Vocab[string(byteToRune[b])]
		if !ok {
			id, complete = -1, false
		}
		t.model.byteID[b] = id
	}
	t.model.unkID, t.model.fuse = -1, m.FuseUnk
	if m.UnkToken != nil && !complete {
		id, ok := m.Vocab[*m.UnkToken]
		if !ok {
			return formatErrorf("model.unk_token %q is not in the vocabulary", clip(*m.UnkToken))
		}
		t.model.unkID = id
	}
	return t.loadMerges(m.Merges)
}

// index fills the tables by id from the vocabulary.
func (t *Tokenizer) index(vocab map[string]int32) error {
	top := int32(-1)
	for name, id := range vocab {
		if id < 0 || id >= maxTokens {
			return formatErrorf("model.vocab: %q has the id %d; ids go from 0 to %d", clip(name), id, maxTokens-1)
		}
		top = max(top, id)
	}
	if err := t.grow(int(top)+1, len(vocab)); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(vocab)) { // errors must not depend on map order
		id := vocab[name]
		if t.known[id] {
			return formatErrorf("model.vocab: %q and %q have the same id %d", clip(t.names[id]), clip(name), id)
		}
		t.names[id], t.known[id] = name, true
	}
	return nil
}

// grow makes the tables by id n long. A file of few tokens must not ask for large tables.
func (t *Tokenizer) grow(n, tokens int) error {
	if n > 16*tokens+1<<16 {
		return formatErrorf("ids go up to %d, but there are only %d tokens", n-1, tokens)
	}
	if more := n - len(t.names); more > 0 {
		t.names = append(t.names, make([]string, more)...)
		t.texts = append(t.texts, make([]string, more)...)
		t.known = append(t.known, make([]bool, more)...)
		t.special = append(t.special, make([]bool, more)...)
	}
	return nil
}

func (t *Tokenizer) loadMerges(raw json.RawMessage) error {
	if null(raw) {
		return formatErrorf("model.merges is missing")
	}
	// Old files write a merge as one string, new ones as a pair.
	var pairs [][]string
	if rest := bytes.TrimLeft(raw[1:], " \t\r\n"); raw[0] == '[' && len(rest) > 0 && rest[0] == '"' {
		var lines []string
		if err := decode("model.merges", raw, &lines); err != nil {
			return err
		}
		for i, line := range lines {
			if strings.HasPrefix(line, "#version") {
				continue
			}
			p := strings.Split(line, " ")
			if len(p) != 2 {
				return formatErrorf("model.merges[%d]: %q is not two tokens with a space between", i, clip(line))
			}
			pairs = append(pairs, p)
		}
	} else if err := decode("model.merges", raw, &pairs); err != nil {
		return err
	}
	t.model.merges = make(map[uint64]merge, len(pairs))
	for i, p := range pairs {
		if len(p) != 2 {
			return formatErrorf("model.merges[%d]: has %d tokens, not 2", i, len(p))
		}
		var ids [3]int32
		for j, name := range []string{p[0], p[1], p[0] + p[1]} {
			id, ok := t.ids[name]
			if !ok {
				return formatErrorf("model.merges[%d]: %q is not in the vocabulary", i, clip(name))
			}
			ids[j] = id
		}
		t.model.merges[pair(ids[0], ids[1])] = merge{int32(i), ids[2]}
	}
	return nil
}

func (t *Tokenizer) loadNormalizer(raw json.RawMessage) error {
	if null(raw) {
		return nil
	}
	kind, err := stepType("normalizer", raw)
	if err != nil {
		return err
	}
	if kind != "NFC" {
		return unsupportedf("normalizer.type %q is not supported; supported: NFC, null", clip(kind))
	}
	var step struct {
		Type string `json:"type"`
	}
	t.nfc = true
	return decode("normalizer", raw, &step)
}

func (t *Tokenizer) loadAdded(raw json.RawMessage) error {
	var list []addedJSON
	if !null(raw) {
		if err := decode("added_tokens", raw, &list); err != nil {
			return err
		}
	}
	var rawTokens, normed []addedToken
	seen := make(map[string]bool, len(list))
	for i, a := range list {
		path := fmt.Sprintf("added_tokens[%d]", i)
		switch {
		case a.Content == "":
			return formatErrorf("%s.content is empty", path)
		case seen[a.Content]:
			return formatErrorf("%s: %q was added before", path, clip(a.Content))
		case a.ID < 0 || a.ID >= maxTokens:
			return formatErrorf("%s: id %d; ids go from 0 to %d", path, a.ID, maxTokens-1)
		}
		seen[a.Content] = true
		if err := t.grow(int(a.ID)+1, len(t.ids)+len(list)); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if id, ok := t.ids[a.Content]; ok && id != a.ID {
			return formatErrorf("%s: %q has the id %d, but %d in model.vocab", path, clip(a.Content), a.ID, id)
		}
		if t.known[a.ID] && t.names[a.ID] != a.Content {
			return formatErrorf("%s: %q has the id %d, which is that of %q", path, clip(a.Content), a.ID, clip(t.names[a.ID]))
		}
		t.ids[a.Content], t.names[a.ID], t.texts[a.ID] = a.ID, a.Content, a.Content
		t.known[a.ID], t.special[a.ID] = true, a.Special
		if a.Special {
			// Special tokens come from matches alone, never from the text between them.
			if text, ok := unmap(a.Content); ok {
				delete(t.model.words, text)
			}
		}
		tok := addedToken{a.ID, a.Content, a.Special, a.LStrip, a.RStrip, a.SingleWord}
		if !a.Normalized {
			rawTokens = append(rawTokens, tok)
			continue
		}
		if t.nfc {
			tok.pattern = norm.NFC.String(a.Content)
		}
		normed = append(normed, tok)
	}
	t.raw, t.normed = newMatcher(rawTokens), newMatcher(normed)
	return nil
}

const supportedPre = "supported: ByteLevel, Digits, Sequence, Split"

func (t *Tokenizer) loadPreTokenizer(raw json.RawMessage) error {
	if null(raw) {
		return unsupportedf("pre_tokenizer null is not supported: a ByteLevel step is needed; %s", supportedPre)
	}
	done := false
	if err := t.loadPreStep("pre_tokenizer", raw, &done, 0); err != nil {
		return err
	}
	if !done {
		return unsupportedf("pre_tokenizer has no ByteLevel step; other alphabets are not supported")
	}
	return nil
}

// loadPreStep reads one step; done says whether ByteLevel was seen, after which text is no text.
func (t *Tokenizer) loadPreStep(path string, raw json.RawMessage, done *bool, depth int) error {
	kind, err := stepType(path, raw)
	if err != nil {
		return err
	}
	if *done {
		return unsupportedf("%s.type %q after ByteLevel is not supported", path, clip(kind))
	}
	switch kind {
	case "Sequence":
		if depth > 8 {
			return unsupportedf("%s: sequences are nested too deep", path)
		}
		var s struct {
			Type string            `json:"type"`
			List []json.RawMessage `json:"pretokenizers"`
		}
		if err := decode(path, raw, &s); err != nil {
			return err
		}
		for i, step := range s.List {
			if err := t.loadPreStep(fmt.Sprintf("%s.pretokenizers[%d]", path, i), step, done, depth+1); err != nil {
				return err
			}
		}
	case "ByteLevel":
		b := byteLevelJSON{UseRegex: true}
		if err := decode(path, raw, &b); err != nil {
			return err
		}
		if b.AddPrefixSpace {
			t.stages = append(t.stages, stage{prefix: true})
		}
		if b.UseRegex {
			t.stages = append(t.stages, stage{scan: &scanner{gpt2: true}})
		}
		*done = true
	case "Digits":
		var d struct {
			Type       string `json:"type"`
			Individual bool   `json:"individual_digits"`
		}
		if err := decode(path, raw, &d); err != nil {
			return err
		}
		mode := digitsRuns
		if d.Individual {
			mode = digitsEach
		}
		t.stages = append(t.stages, stage{digits: mode})
	case "Split":
		return t.loadSplit(path, raw)
	default:
		return unsupportedf("%s.type %q is not supported; %s", path, clip(kind), supportedPre)
	}
	return nil
}

type byteLevelJSON struct {
	Type           string `json:"type"`
	AddPrefixSpace bool   `json:"add_prefix_space"`
	TrimOffsets    bool   `json:"trim_offsets"` // offsets are not computed here
	UseRegex       bool   `json:"use_regex"`
}

func (t *Tokenizer) loadSplit(path string, raw json.RawMessage) error {
	var s struct {
		Type    string `json:"type"`
		Pattern struct {
			Regex  *string `json:"Regex"`
			String *string `json:"String"`
		} `json:"pattern"`
		Behavior string `json:"behavior"`
		Invert   bool   `json:"invert"`
	}
	if err := decode(path, raw, &s); err != nil {
		return err
	}
	switch {
	case s.Pattern.String != nil:
		return unsupportedf("%s.pattern String is not supported; supported: Regex", path)
	case s.Pattern.Regex == nil:
		return formatErrorf("%s.pattern.Regex is missing", path)
	case s.Behavior != "Isolated":
		return unsupportedf("%s.behavior %q is not supported; supported: Isolated", path, clip(s.Behavior))
	case s.Invert:
		return unsupportedf("%s.invert true is not supported; supported: false", path)
	}
	if sc, ok := scanners[*s.Pattern.Regex]; ok {
		t.stages = append(t.stages, stage{scan: &sc})
		return nil
	}
	p, err := compilePattern(*s.Pattern.Regex)
	if err != nil {
		return unsupportedf("%s.pattern.Regex: %w", path, err)
	}
	t.stages = append(t.stages, stage{regex: p})
	return nil
}

func (t *Tokenizer) loadPostProcessor(path string, raw json.RawMessage) error {
	return t.loadPostStep(path, raw, 0)
}

func (t *Tokenizer) loadPostStep(path string, raw json.RawMessage, depth int) error {
	if null(raw) && depth == 0 {
		return nil
	}
	kind, err := stepType(path, raw)
	if err != nil {
		return err
	}
	switch kind {
	case "Sequence":
		if depth > 8 {
			return unsupportedf("%s: sequences are nested too deep", path)
		}
		var s struct {
			Type string            `json:"type"`
			List []json.RawMessage `json:"processors"`
		}
		if err := decode(path, raw, &s); err != nil {
			return err
		}
		for i, step := range s.List {
			if err := t.loadPostStep(fmt.Sprintf("%s.processors[%d]", path, i), step, depth+1); err != nil {
				return err
			}
		}
		return nil
	case "ByteLevel": // trims offsets, which are not computed here
		var b byteLevelJSON
		return decode(path, raw, &b)
	case "TemplateProcessing":
		return t.loadTemplate(path, raw)
	}
	return unsupportedf("%s.type %q is not supported; supported: ByteLevel, Sequence, TemplateProcessing", path, clip(kind))
}

func (t *Tokenizer) loadTemplate(path string, raw json.RawMessage) error {
	type piece struct {
		ID     string `json:"id"`
		TypeID int    `json:"type_id"`
	}
	var p struct {
		Type   string `json:"type"`
		Single []struct {
			SpecialToken *piece `json:"SpecialToken"`
			Sequence     *piece `json:"Sequence"`
		} `json:"single"`
		Pair    json.RawMessage `json:"pair"` // pairs of texts are not encoded here
		Special map[string]struct {
			ID     string   `json:"id"`
			IDs    []int32  `json:"ids"`
			Tokens []string `json:"tokens"`
		} `json:"special_tokens"`
	}
	if err := decode(path, raw, &p); err != nil {
		return err
	}
	var prefix, suffix []int32
	text := false
	for i, s := range p.Single {
		at := fmt.Sprintf("%s.single[%d]", path, i)
		switch {
		case (s.Sequence == nil) == (s.SpecialToken == nil):
			return formatErrorf("%s: must be one of Sequence and SpecialToken", at)
		case s.Sequence != nil:
			if s.Sequence.ID != "A" || text {
				return unsupportedf("%s: Sequence %q is not supported here; supported: A, once", at, clip(s.Sequence.ID))
			}
			text = true
			continue
		}
		tok, ok := p.Special[s.SpecialToken.ID]
		if !ok {
			return formatErrorf("%s: %q is not in %s.special_tokens", at, clip(s.SpecialToken.ID), path)
		}
		for _, id := range tok.IDs {
			if _, ok := t.Token(id); !ok {
				return formatErrorf("%s.special_tokens: %q has the id %d, which is no token", path, clip(s.SpecialToken.ID), id)
			}
		}
		if text {
			suffix = append(suffix, tok.IDs...)
		} else {
			prefix = append(prefix, tok.IDs...)
		}
	}
	if !text {
		return unsupportedf("%s.single has no Sequence A: the text would be lost", path)
	}
	// Within a sequence of processors a template wraps what the ones before it made.
	t.prefix = append(prefix, t.prefix...)
	t.suffix = append(t.suffix, suffix...)
	return nil
}

func loadDecoder(path string, raw json.RawMessage) error {
	if null(raw) {
		return unsupportedf("%s null is not supported; supported: ByteLevel, Sequence of one ByteLevel", path)
	}
	kind, err := stepType(path, raw)
	if err != nil {
		return err
	}
	switch kind {
	case "ByteLevel":
		var b byteLevelJSON
		return decode(path, raw, &b)
	case "Sequence":
		var s struct {
			Type string            `json:"type"`
			List []json.RawMessage `json:"decoders"`
		}
		if err := decode(path, raw, &s); err != nil {
			return err
		}
		if len(s.List) != 1 || strings.Count(path, ".") > 8 {
			return unsupportedf("%s: a Sequence of %d decoders is not supported; supported: of one ByteLevel", path, len(s.List))
		}
		return loadDecoder(path+".decoders[0]", s.List[0])
	}
	return unsupportedf("%s.type %q is not supported; supported: ByteLevel, Sequence", path, clip(kind))
}
