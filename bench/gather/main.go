//go:build linux

// Command gather compares the scoring of lists of random rows, the work of
// walking a graph of keys, with the same work in C compiled by gcc: 32 random
// ids a list over 8 heads of 131,072 bf16 keys, 1 and 4 queries. Both run in
// turns, one thread each, over keys and lists made from the same seed, on the
// same kind of pages, and must give the same scores.
//
//	go run ./bench/gather [-huge=false] [-rounds 15]
//
// The table gives medians in nanoseconds per key and how many times as long
// as the faster C form Go takes. The C forms ask for the whole list before they use it, or for
// each row 8 rows ahead.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/retrievalattention/ra/host/kernel"

	_ "embed"
)

//go:embed gather.c
var source []byte

const (
	heads  = 8
	keys   = 131072 // of a head
	lists  = 8192
	length = 32 // of a list
)

func main() {
	huge := flag.Bool("huge", true, "keep the keys in huge pages")
	rounds := flag.Int("rounds", 15, "turns of each side")
	flag.Parse()
	if err := run(*huge, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "gather:", err)
		os.Exit(1)
	}
}

func run(huge bool, rounds int) error {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		fmt.Println("skipped: comparing needs gcc, and none is installed")
		return nil
	}
	dir, err := os.MkdirTemp("", "gather")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file, program := filepath.Join(dir, "gather.c"), filepath.Join(dir, "gather")
	if err := os.WriteFile(file, source, 0o600); err != nil {
		return err
	}
	if out, err := exec.Command(gcc, "-O3", "-march=native", "-o", program, file).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	fmt.Printf("ns per key, kernels of level %s, huge pages %v\n", kernel.Level(), huge)
	fmt.Println("dim queries | C, whole list | C, 8 ahead |    Go | Go / C")
	for _, dim := range []int{64, 128} {
		for _, nq := range []int{1, 4} {
			if err := compare(program, dim, nq, huge, rounds); err != nil {
				return err
			}
		}
	}
	return nil
}

// compare lets the C program and Go take turns.
func compare(program string, dim, nq int, huge bool, rounds int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	g, err := newGather(dim, nq, huge)
	if err != nil {
		return err
	}
	defer unix.Munmap(g.memory)
	h := "0"
	if huge {
		h = "1"
	}
	cmd := exec.Command(program, strconv.Itoa(dim), strconv.Itoa(nq), strconv.Itoa(heads), strconv.Itoa(keys), strconv.Itoa(lists), strconv.Itoa(length), h)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer cmd.Wait()
	defer in.Close()
	answers := bufio.NewReader(pipe)
	ask := func(line string) (string, error) {
		if _, err := fmt.Fprintln(in, line); err != nil {
			return "", err
		}
		return answers.ReadString('\n')
	}
	scores, err := ask("scores")
	if err != nil {
		return err
	}
	if err := g.check(strings.Fields(scores)); err != nil {
		return err
	}
	var whole, ahead, ours []float64
	for range rounds {
		for _, c := range []struct {
			rows  string
			times *[]float64
		}{{strconv.Itoa(length), &whole}, {"8", &ahead}} {
			answer, err := ask(c.rows)
			if err != nil {
				return err
			}
			ns, err := strconv.ParseFloat(strings.TrimSpace(answer), 64)
			if err != nil {
				return err
			}
			*c.times = append(*c.times, ns)
		}
		start := time.Now()
		for i := range lists {
			g.score(i)
		}
		ours = append(ours, float64(time.Since(start).Nanoseconds())/lists/length)
	}
	w, a, o := median(whole), median(ahead), median(ours)
	fmt.Printf("%3d %7d | %13.1f | %10.1f | %5.1f | %6.2f\n", dim, nq, w, a, o, o/min(w, a))
	return nil
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}

// gather is the data of one comparison.
type gather struct {
	memory  []byte
	heads   []kernel.Rows
	queries [][]float32
	ids     []uint32
	out     [][]float32
	scratch []float32
}

// newGather makes keys, queries and lists as gather.c does.
func newGather(dim, nq int, huge bool) (*gather, error) {
	const page = 2 << 20
	size := heads * keys * dim
	m, err := unix.Mmap(-1, 0, 2*size+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	g := &gather{memory: m, scratch: make([]float32, dim)}
	at := -int(uintptr(unsafe.Pointer(&m[0]))) & (page - 1) // whole huge pages
	advice := unix.MADV_NOHUGEPAGE
	if huge {
		advice = unix.MADV_HUGEPAGE
	}
	if err := unix.Madvise(m[at:at+(2*size+page-1)/page*page], advice); err != nil {
		return nil, errors.Join(err, unix.Munmap(m))
	}
	store := unsafe.Slice((*uint16)(unsafe.Pointer(&m[at])), size)
	r := mixer(1)
	for i := range store {
		store[i] = r.element()
	}
	for h := range heads {
		g.heads = append(g.heads, kernel.RowsU16(store[h*keys*dim:(h+1)*keys*dim], dim, kernel.BF16))
	}
	for range nq {
		q := make([]float32, dim)
		for k := range q {
			q[k] = math.Float32frombits(uint32(r.element())<<16) / 3
		}
		g.queries, g.out = append(g.queries, q), append(g.out, make([]float32, length))
	}
	g.ids = make([]uint32, lists*length)
	for i := range g.ids {
		g.ids[i] = uint32(r.next() % keys)
	}
	return g, nil
}

func (g *gather) score(i int) {
	kernel.ScoreList(g.queries, g.heads[i%heads], g.ids[i*length:(i+1)*length], g.out, g.scratch)
}

// check compares C's scores of the first list with ours.
func (g *gather) check(scores []string) error {
	g.score(0)
	if len(scores) != len(g.queries)*length {
		return fmt.Errorf("%d scores from C, want %d", len(scores), len(g.queries)*length)
	}
	for i, s := range scores {
		theirs, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return err
		}
		q, id := g.queries[i/length], g.ids[i%length]
		g.heads[0].Widen(int(id), g.scratch)
		var abs float64
		for k, v := range q {
			abs += math.Abs(float64(v) * float64(g.scratch[k]))
		}
		if ours := float64(g.out[i/length][i%length]); math.Abs(ours-theirs) > 4e-6*abs {
			return fmt.Errorf("query %d, row %d: %v from C, %v from Go", i/length, id, theirs, ours)
		}
	}
	return nil
}

// mixer is the generator splitmix64.
type mixer uint64

func (r *mixer) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// element is a bf16 with random sign and mantissa and a magnitude from 1/4
// to 4.
func (r *mixer) element() uint16 {
	x := r.next()
	return uint16(x&0x807f | (125+x>>32&3)<<7)
}
