package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const heads, keys, queries, dim = 2, 300, 8, 16

// writeData writes seeded files and returns what is in them.
func writeData(t *testing.T, dir string) (k, q []float32) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 1))
	write := func(name string, rows int) []float32 {
		v := make([]float32, rows*dim)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		var b bytes.Buffer
		for _, x := range []any{uint32(rows), uint32(dim), v} {
			if err := binary.Write(&b, binary.LittleEndian, x); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return v
	}
	return write("keys.fbin", heads*keys), write("queries.fbin", heads*queries)
}

// Every case answers the queries of all heads in the order of the file; f32
// keys give the ids of sorting by exact scores.
func TestCases(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	dir := t.TempDir()
	k, q := writeData(t, dir)
	want := make([][][]uint32, heads)
	for h := range heads {
		for i := range queries {
			scores := make([]float64, keys)
			ids := make([]uint32, keys)
			for j := range keys {
				ids[j] = uint32(j)
				for x := range dim {
					scores[j] += float64(k[(h*keys+j)*dim+x]) * float64(q[(h*queries+i)*dim+x])
				}
			}
			slices.SortFunc(ids, func(a, b uint32) int {
				if scores[a] > scores[b] {
					return -1
				}
				return 1
			})
			want[h] = append(want[h], ids[:5])
		}
	}
	for name := range makers {
		for threads := range 2 {
			shape := fmt.Sprintf(`"heads":%d,"queries":%d,"k":5`, heads, queries)
			in := fmt.Sprintf(`{"case":%q,"threads":%d,"results":true,%s} {"case":%q,"threads":1,%s} {"case":"none","threads":1,%s} {"case":%q,"threads":1,"heads":2,"queries":12,"k":5}`,
				name, threads+1, shape, name, shape, shape, name)
			var out bytes.Buffer
			if err := run([]string{"-data", dir, "-heads", fmt.Sprint(heads)}, strings.NewReader(in), &out); err != nil {
				t.Fatal(err)
			}
			dec := json.NewDecoder(&out)
			var about struct{ Cases []string }
			var first, second, third, fourth answer
			for _, v := range []any{&about, &first, &second, &third, &fourth} {
				if err := dec.Decode(v); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.Contains(about.Cases, name) || first.Seconds <= 0 || second.Seconds <= 0 || second.IDs != nil || third.Error != `there is no case "none"` || !strings.Contains(fourth.Error, "8 queries each") {
				t.Errorf("%s: %+v, %+v, %+v, %+v", name, about, second, third, fourth)
			}
			same := 0
			for h := range heads {
				for i := range queries {
					for _, id := range first.IDs[h][i] {
						if slices.Contains(want[h][i], id) {
							same++
						}
					}
				}
			}
			if all := heads * queries * 5; strings.HasSuffix(name, "f32") && same != all || same < all*9/10 {
				t.Errorf("%s: %d of %d ids right", name, same, all)
			}
		}
	}
}

func TestBadData(t *testing.T) {
	dir := t.TempDir()
	writeData(t, dir)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-data", "nowhere"}, "nowhere"},
		{[]string{"-data", dir, "-heads", "7"}, "do not divide among 7 heads"},
	} {
		if err := run(c.args, strings.NewReader(""), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.args, err)
		}
	}
	file := filepath.Join(dir, "keys.fbin")
	if err := os.Truncate(file, 100); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"-data", dir}, strings.NewReader(""), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "remove it so that it is made again") {
		t.Errorf("a truncated file: %v", err)
	}
}
