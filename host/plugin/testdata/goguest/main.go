// Command goguest is a plugin that misbehaves in the way that its parameter
// says, to test what the host makes of a standard Go guest's failures.
package main

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"time"

	ra "github.com/retrievalattention/ra/sdk/go"
)

type guest struct {
	ra.NoIndex
	mode string
	kept [][]byte
}

func init() {
	modes := []string{"none", "sleep", "panic", "index", "recurse", "allocate", "garbage", "deadlock", "loop", "error", "log", "random", "read"}
	ra.Register(ra.Description{Name: "goguest", Version: "0", Parameters: []ra.Parameter{
		{Name: "mode", Type: "string", Values: modes, Default: "none"},
	}}, &guest{})
}

func main() {}

func (g *guest) Configure(p ra.Params) error {
	g.mode = p.String("mode")
	return nil
}

func (g *guest) Search(c *ra.Call) error {
	switch g.mode {
	case "sleep":
		time.Sleep(time.Second)
	case "panic":
		panic("out of ideas")
	case "index":
		return errors.New(strconv.Itoa(int(c.Uint32s(1)[c.Heads])))
	case "recurse":
		return errors.New(strconv.Itoa(recurse(1)))
	case "allocate":
		for {
			g.kept = append(g.kept, make([]byte, 1<<20))
		}
	case "garbage":
		sum := 0
		for i := range 100 {
			b := make([]byte, 1000+i)
			g.kept = append(g.kept[:0], b)
			sum += len(b)
		}
	case "deadlock":
		<-make(chan int)
	case "loop":
		for i := uint32(1); i != 0; i += 2 {
			sink += i
		}
	case "error":
		return errors.New("index 7 is missing; rebuild it")
	case "log":
		ra.Log(ra.Warn, "careful")
		println("printed")
	case "random":
		ra.Log(ra.Info, strconv.Itoa(rand.IntN(1e9)))
	case "read":
		return read(c)
	}
	return nil
}

// read checks that the kernels agree with arithmetic on the vectors read.
func read(c *ra.Call) error {
	var ranges [1]ra.Range
	for b := range c.Batches(0) {
		info := ra.StoreInfo(b.Sequence, b.KVHead)
		if n := ra.IndexedRanges(b.Sequence, b.KVHead, ranges[:]); n != 1 || info.Ranges != 1 || int(ranges[0].Hi-ranges[0].Lo) != info.Indexed {
			return errors.New("indexed ranges")
		}
		d := c.HeadDim
		ids := c.Uint32s(3)
		ids[0], ids[1], ids[2] = ranges[0].Lo, ranges[0].Lo+5, ranges[0].Hi-1
		keys, queries := c.Float32s(3*d), c.Float32s(b.N*d)
		ra.ReadKeys(b.Sequence, b.KVHead, ids, keys)
		ra.ReadQueries(b.First, b.N, queries)
		scores, span := c.Float32s(3*b.N), c.Float32s(6*b.N)
		ra.Score(b.First, b.N, ids, scores)
		ra.ScoreRange(b.First, b.N, int(ids[0]), int(ids[0])+6, span)
		for j := range b.N {
			for i := range ids {
				dot := float32(0)
				for x := range d {
					dot += keys[i*d+x] * queries[j*d+x]
				}
				if diff := dot - scores[j*3+i]; diff > 1e-4 || diff < -1e-4 {
					return errors.New("score " + strconv.FormatFloat(float64(diff), 'g', -1, 32))
				}
			}
			if span[j*6] != scores[j*3] || span[j*6+5] != scores[j*3+1] {
				return errors.New("score_range differs from score")
			}
			ra.Emit(b.At(j), ids, []float32{0, 1, -1})
		}
	}
	return nil
}

var sink uint32

//go:noinline
func recurse(n int) int { return recurse(n+1) + n }
