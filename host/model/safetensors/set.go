package safetensors

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync/atomic"
)

var (
	// ErrNoWeights: the folder has neither model.safetensors nor an index of shards.
	ErrNoWeights = errors.New("no safetensors weights")
	// ErrFormat: a file is damaged or is not safetensors. Downloading it again is the cure.
	ErrFormat = errors.New("invalid safetensors")
	// ErrNotFound: the set has no tensor of that name.
	ErrNotFound = errors.New("tensor not found")
	// ErrDType: the tensor's element type is not one that is supported here.
	ErrDType = errors.New("unsupported dtype")
	// ErrClosed: the set was closed, its memory is gone.
	ErrClosed = errors.New("set is closed")
)

// File names that Hugging Face folders use.
const (
	SingleName = "model.safetensors"
	IndexName  = "model.safetensors.index.json"
)

// maxIndex bounds the index file; that of the largest public models is below 1 MB.
const maxIndex = 64 << 20

// stored is a tensor and the file that holds it, which errors name.
type stored struct {
	Tensor
	file string
}

// Set is the tensors of one file or of a sharded set. It is safe for concurrent use, Close apart:
// nobody may hold a Tensor of it any longer then.
type Set struct {
	origin   string
	tensors  map[string]stored
	names    []string
	metadata map[string]string
	unmap    []func() error
	closed   atomic.Bool
}

// source reads named files of one folder; it hides whether they are mapped or read.
type source interface {
	// read gives a file's bytes and how to let go of them (nil: nothing to do). A file that does
	// not exist is fs.ErrNotExist.
	read(name string) (data []byte, release func() error, err error)
	// path is how errors name a file.
	path(name string) string
}

// Open opens the weights of a Hugging Face folder: model.safetensors where there is one, else the
// shards of model.safetensors.index.json. Files are mapped read-only on Linux and macOS and read
// into memory elsewhere; they must not be shortened while the set is open. Headers are checked in
// full here, so that a Set that opens is sound. Errors: ErrNoWeights, ErrFormat, or those of the
// file system. The caller closes the set.
func Open(dir string) (*Set, error) {
	return open(dirSource(dir), dir)
}

// OpenFS is Open on a file system, for weights that are embedded in the program. Each file is held
// as fs.ReadFile returns it.
func OpenFS(fsys fs.FS) (*Set, error) {
	return open(fsSource{fsys}, "the file system")
}

// OpenFile opens one file, whatever its name, as Open does.
func OpenFile(path string) (*Set, error) {
	s := newSet(path)
	if err := s.addFile(dirSource(filepath.Dir(path)), filepath.Base(path)); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s.finish(), nil
}

// Parse reads one file from memory, which the set keeps and the caller must not change. The name
// is used in errors.
func Parse(name string, data []byte) (*Set, error) {
	s := newSet(name)
	if err := s.addBytes(name, data); err != nil {
		return nil, err
	}
	return s.finish(), nil
}

func newSet(origin string) *Set {
	return &Set{origin: origin, tensors: make(map[string]stored), metadata: make(map[string]string)}
}

func open(src source, origin string) (*Set, error) {
	s := newSet(origin)
	err := s.addFile(src, SingleName)
	if errors.Is(err, fs.ErrNotExist) {
		err = s.addShards(src)
		if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errShard) {
			err = fmt.Errorf("safetensors: %s has neither %s nor %s; point to a Hugging Face model folder that has its weights: %w", origin, SingleName, IndexName, ErrNoWeights)
		}
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s.finish(), nil
}

// errShard marks a missing shard, so that it is not taken for a missing index.
var errShard = errors.New("missing shard")

func (s *Set) addFile(src source, name string) error {
	data, release, err := src.read(name)
	if err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	if release != nil {
		s.unmap = append(s.unmap, release)
	}
	return s.addBytes(src.path(name), data)
}

func (s *Set) addBytes(file string, data []byte) error {
	entries, metadata, base, err := parseHeader(data)
	if err != nil {
		return fmt.Errorf("safetensors: %s: %w", file, err)
	}
	for _, e := range entries {
		if other, dup := s.tensors[e.name]; dup {
			return fmt.Errorf("safetensors: %s: tensor %q is also in %s; the set is damaged: download it again (%w)", file, clip(e.name), other.file, ErrFormat)
		}
		lo, hi := base+int(e.begin), base+int(e.end)
		s.tensors[e.name] = stored{Tensor{Name: e.name, DType: e.dtype, Shape: e.shape, Data: data[lo:hi:hi]}, file}
	}
	for k, v := range metadata {
		if _, have := s.metadata[k]; !have {
			s.metadata[k] = v
		}
	}
	return nil
}

func (s *Set) addShards(src source) error {
	js, release, err := src.read(IndexName)
	if err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	if release != nil {
		s.unmap = append(s.unmap, release)
	}
	path := src.path(IndexName)
	if len(js) > maxIndex {
		return fmt.Errorf("safetensors: %s has %d bytes, more than the limit of %d (%w)", path, len(js), maxIndex, ErrFormat)
	}
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(js, &index); err != nil {
		var syn *json.SyntaxError
		if errors.As(err, &syn) {
			return fmt.Errorf("safetensors: %s: byte %d: %v; download it again (%w)", path, syn.Offset, err, ErrFormat)
		}
		return fmt.Errorf("safetensors: %s: %v (%w)", path, err, ErrFormat)
	}
	if len(index.WeightMap) == 0 {
		return fmt.Errorf("safetensors: %s: weight_map is missing or empty; download it again (%w)", path, ErrFormat)
	}
	names := slices.Sorted(maps.Keys(index.WeightMap)) // errors must not depend on map order
	var shards []string
	for _, name := range names {
		shard := index.WeightMap[name]
		// A shard is a plain file beside its index. Anything else could read files elsewhere.
		if shard == "" || shard == "." || shard == ".." || strings.ContainsAny(shard, `/\:`+"\x00") {
			return fmt.Errorf("safetensors: %s: tensor %q names the shard %q, which is not a plain file name; do not trust this model (%w)", path, clip(name), clip(shard), ErrFormat)
		}
		shards = append(shards, shard)
	}
	slices.Sort(shards)
	for _, shard := range slices.Compact(shards) {
		if err := s.addFile(src, shard); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("safetensors: %s: %w %s: %w; download it", path, errShard, shard, errors.Unwrap(err))
		} else if err != nil {
			return err
		}
	}
	for _, name := range names {
		want := src.path(index.WeightMap[name])
		got, ok := s.tensors[name]
		switch {
		case !ok:
			return fmt.Errorf("safetensors: %s: tensor %q should be in %s, but it is not; download the set again (%w)", path, clip(name), want, ErrFormat)
		case got.file != want:
			return fmt.Errorf("safetensors: %s: tensor %q should be in %s, but it is in %s; download the set again (%w)", path, clip(name), want, got.file, ErrFormat)
		}
	}
	return nil
}

func (s *Set) finish() *Set {
	s.names = slices.Sorted(maps.Keys(s.tensors))
	return s
}

// Names lists the tensors in byte order of their names, those of unsupported dtypes included. The
// caller must not change the slice.
func (s *Set) Names() []string { return s.names }

// Has says whether the set has a tensor of that name, whatever its dtype.
func (s *Set) Has(name string) bool {
	_, ok := s.tensors[name]
	return ok
}

// Metadata is a copy of the files' __metadata__; of a key that several shards have, the value in
// the first shard by name.
func (s *Set) Metadata() map[string]string { return maps.Clone(s.metadata) }

// Tensor gives a tensor by name. Its Data is the set's memory, valid until Close. Errors:
// ErrNotFound, ErrDType for an element type other than F32, F16 and BF16, ErrClosed.
func (s *Set) Tensor(name string) (Tensor, error) {
	if s.closed.Load() {
		return Tensor{}, fmt.Errorf("safetensors: %s: tensor %q: %w", s.origin, name, ErrClosed)
	}
	t, ok := s.tensors[name]
	if !ok {
		near := ""
		if n := s.nearest(name); n != "" {
			near = fmt.Sprintf(" (nearest of %d: %q)", len(s.names), clip(n))
		}
		return Tensor{}, fmt.Errorf("safetensors: %s has no tensor %q%s; the weights may be of another model or incomplete: %w", s.origin, clip(name), near, ErrNotFound)
	}
	if !t.DType.supported() {
		return Tensor{}, fmt.Errorf("safetensors: %s: tensor %q has dtype %q; supported: F32, F16, BF16; convert the weights: %w", t.file, clip(name), clip(string(t.DType)), ErrDType)
	}
	return t.Tensor, nil
}

// nearest is the name that shares the longest prefix and suffix with the wanted one; it helps to
// see that, for instance, a prefix is missing.
func (s *Set) nearest(name string) string {
	best, score := "", 0
	i := sort.SearchStrings(s.names, name)
	for _, n := range s.names[max(0, i-64):min(len(s.names), i+64)] {
		p := 0
		for p < len(n) && p < len(name) && n[p] == name[p] {
			p++
		}
		q := 0
		for q < len(n)-p && q < len(name)-p && n[len(n)-1-q] == name[len(name)-1-q] {
			q++
		}
		if p+q > score {
			best, score = n, p+q
		}
	}
	return best
}

// Close unmaps the files. Tensors taken from the set must not be used any longer; reading their
// data would fault. Closing twice is fine.
func (s *Set) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	var errs []error
	for _, f := range s.unmap {
		errs = append(errs, f())
	}
	s.unmap = nil
	return errors.Join(errs...)
}

// fsSource reads through an fs.FS.
type fsSource struct{ fsys fs.FS }

func (s fsSource) read(name string) ([]byte, func() error, error) {
	data, err := fs.ReadFile(s.fsys, name)
	return data, nil, err
}

func (s fsSource) path(name string) string { return name }

// dirSource maps the files of a folder.
type dirSource string

func (d dirSource) path(name string) string { return filepath.Join(string(d), name) }

func (d dirSource) read(name string) ([]byte, func() error, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, nil, err
	}
	defer f.Close() // a mapping outlives its descriptor
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file", d.path(name))
	}
	if info.Size() == 0 { // cannot be mapped
		return nil, nil, nil
	}
	if info.Size() != int64(int(info.Size())) {
		return nil, nil, fmt.Errorf("%s has %d bytes, more than this machine can address", d.path(name), info.Size())
	}
	data, release, err := mapFile(f, int(info.Size()))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", d.path(name), err)
	}
	return data, release, nil
}
