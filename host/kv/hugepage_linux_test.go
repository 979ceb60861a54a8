package kv

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/retrievalattention/ra/host/kernel"
)

// smaps returns the huge-page memory in bytes and the flags of the mapping
// that b begins in.
func smaps(tb testing.TB, b []byte) (huge int64, flags string) {
	tb.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		tb.Skip("no /proc/self/smaps:", err)
	}
	defer f.Close()
	at, inside := uint64(uintptr(unsafe.Pointer(&b[0]))), false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		var lo, hi uint64
		if n, _ := fmt.Sscanf(line, "%x-%x ", &lo, &hi); n == 2 {
			inside = lo <= at && at < hi
			continue
		}
		if !inside {
			continue
		}
		if v, ok := strings.CutPrefix(line, "AnonHugePages:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			if err != nil {
				tb.Fatal(err)
			}
			huge = kib << 10
		}
		if v, ok := strings.CutPrefix(line, "VmFlags:"); ok {
			flags = v + " "
		}
	}
	return huge, flags
}

// Dense memory is aligned, asks for huge pages and gets them; memory of which
// little will be written asks for none.
func TestHugePages(t *testing.T) {
	if HugePages() == "never" {
		t.Skip("transparent huge pages are off: " + hugePagesFile)
	}
	const size = 9<<20 + 5*4096
	a := NewAllocator(0)
	probe, err := unix.Mmap(-1, 0, 4<<20, readWrite, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	advise(probe, unix.MADV_HUGEPAGE)
	if _, flags := smaps(t, probe); !strings.Contains(flags, " hg ") {
		t.Skip("this system, an emulator perhaps, does not show advice: flags" + flags)
	}
	if err := unix.Munmap(probe); err != nil {
		t.Fatal(err)
	}
	for _, dense := range []bool{true, false} {
		r, err := a.alloc(size, KeysValues, dense)
		if err != nil {
			t.Fatal(err)
		}
		b := r.Bytes()
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		huge, flags := smaps(t, b)
		t.Logf("dense %v: %d of %d KiB in huge pages, flags%s", dense, huge>>10, size>>10, flags)
		if asks, refuses := strings.Contains(flags, " hg "), strings.Contains(flags, " nh "); asks != dense || refuses == dense {
			t.Errorf("dense %v: flags %s", dense, flags)
		}
		if dense && uintptr(unsafe.Pointer(&b[0]))%hugePage != 0 {
			t.Errorf("begins at %p", &b[0])
		}
		// The system may be short of huge pages, but hands out none unasked.
		if !dense && huge != 0 {
			t.Errorf("%d bytes in huge pages that were not asked for", huge)
		}
		if dense && huge == 0 {
			t.Log("the system had no huge page to give")
		}
		if err := r.Release(); err != nil {
			t.Fatal(err)
		}
	}
}

// Another process can map shareable memory but neither resize nor write it.
func TestShareableIsSealed(t *testing.T) {
	r, err := NewAllocatorOn(Shareable, 0).Alloc(8192, KeysValues)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(r.File().Fd())
	seen, err := unix.Mmap(fd, 0, 8192, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	r.Bytes()[5000] = 42 // after the seal, and after it was mapped
	if seen[5000] != 42 {
		t.Errorf("the other mapping reads %d", seen[5000])
	}
	for _, n := range []int64{0, 4096, 1 << 20} {
		if err := unix.Ftruncate(fd, n); err != unix.EPERM {
			t.Errorf("truncate to %d: %v", n, err)
		}
	}
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		t.Fatal(err)
	}
	if seals&unix.F_SEAL_FUTURE_WRITE == 0 {
		t.Log("this kernel has no seal on writing")
	} else if m, err := unix.Mmap(fd, 0, 8192, readWrite, unix.MAP_SHARED); err != unix.EPERM {
		t.Errorf("mapped to write: %v, %v", len(m), err)
	}
	if err := unix.Munmap(seen); err != nil {
		t.Fatal(err)
	}
	if err := r.Release(); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkPages is what huge pages are for: exact scores of 32 random keys,
// and of a range, of 2^20 bf16 keys of dimension 128.
func BenchmarkPages(b *testing.B) {
	const n, dim, ids = 1 << 20, 128, 32
	a := NewAllocator(0)
	small, err := NewAllocator(0).alloc(n*dim*2, KeysValues, false)
	if err != nil {
		b.Fatal(err)
	}
	huge, err := a.Alloc(n*dim*2, KeysValues)
	if err != nil {
		b.Fatal(err)
	}
	shared, err := NewAllocatorOn(Shareable, 0).Alloc(n*dim*2, KeysValues)
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	queries := [][]float32{make([]float32, dim)}
	for i := range queries[0] {
		queries[0][i] = float32(r.NormFloat64())
	}
	scratch := make([]float32, dim)
	for _, c := range []struct {
		name string
		r    *Region
	}{{"small", small}, {"huge", huge}, {"shareable", shared}} {
		u := Slice[uint16](c.r, 0, n*dim)
		for i := range u {
			u[i] = 0x3f80 + uint16(i%64)
		}
		got, _ := smaps(b, c.r.Bytes())
		rows := kernel.RowsU16(u, dim, kernel.BF16)
		list, out := make([]uint32, ids), [][]float32{make([]float32, 4096)}
		b.Run("gather/"+c.name, func(b *testing.B) {
			for b.Loop() {
				for i := range list {
					list[i] = r.Uint32N(n)
				}
				kernel.ScoreList(queries, rows, list, out, scratch)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/ids, "ns/key")
			b.ReportMetric(float64(got>>20), "MiB-huge")
		})
		b.Run("scan/"+c.name, func(b *testing.B) {
			lo := 0
			for b.Loop() {
				kernel.ScoreRange(queries, rows, lo, lo+4096, out, scratch)
				lo = (lo + 4096) % n
			}
			b.ReportMetric(float64(4096*dim*2)/float64(b.Elapsed().Nanoseconds())*float64(b.N), "GB/s")
		})
	}
	for _, r := range []*Region{small, huge, shared} {
		if err := r.Release(); err != nil {
			b.Fatal(err)
		}
	}
}
