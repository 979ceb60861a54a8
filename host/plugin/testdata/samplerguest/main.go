// Command samplerguest is a plugin that uses what few plugins do: the prefill's
// queries and stored keys as queries while it builds, summaries and biases
// that depend on logits.
package main

import (
	"math"
	"strconv"
	"strings"

	ra "github.com/retrievalattention/ra/sdk/go"
)

type guest struct{ ra.NoIndex }

func init() {
	ra.Register(ra.Description{Name: "samplerguest", Version: "0", PrefillQueries: true}, guest{})
}

func main() {}

// Build logs scores of two queries of each kind, for the test to compare.
func (guest) Build(layer, kvHead int) error {
	info := ra.Building()
	out := make([]float32, 2*3)
	line := []string{"build", strconv.Itoa(kvHead), strconv.Itoa(info.Queries), strconv.Itoa(info.Group), strconv.Itoa(info.HeadDim)}
	for _, q := range []ra.Query{ra.PrefillQuery(info.Group), ra.PrefillQuery(info.Group*info.Queries - 2), ra.KeyQuery(20)} {
		ra.Score(q, 2, []uint32{9, 10, 30}, out)
		for _, v := range out {
			line = append(line, strconv.FormatUint(uint64(math.Float32bits(v)), 16))
		}
	}
	ra.Log(ra.Info, strings.Join(line, " "))
	ra.PutBlob(3, []byte("built "+strconv.Itoa(kvHead)))
	return nil
}

// Append notes the positions behind what was kept before.
func (guest) Append(_, kvHead, lo, hi int) error {
	ra.PutBlob(3, []byte(kept(kvHead)+" appended "+strconv.Itoa(lo)+" "+strconv.Itoa(hi)))
	return nil
}

// kept reads the blob in two parts.
func kept(kvHead int) string {
	if ra.GetBlob(0, kvHead, 4, 0, nil) != -1 {
		return "slot 4 was never written"
	}
	text := make([]byte, 5)
	n := ra.GetBlob(0, kvHead, 3, 0, text)
	rest := make([]byte, n)
	ra.GetBlob(0, kvHead, 3, len(text), rest)
	return string(text) + string(rest[:n-len(text)])
}

// Search emits tokens 8 and 9 for the first query head of each group, and two
// summaries for the others.
func (guest) Search(c *ra.Call) error {
	for b := range c.Batches(1) {
		if int(b.First)%c.Group == 0 {
			ra.Log(ra.Info, "kept: "+kept(b.KVHead))
			ra.Emit(b.First, []uint32{9, 8}, nil)
			continue
		}
		values := c.Float32s(2 * c.HeadDim)
		for i := range values {
			values[i] = float32(i)
		}
		ra.EmitSummaries(b.First, []float32{1, -2}, []float32{0.5, 3}, values)
	}
	return nil
}

// Weigh sets minus half of each logit.
func (guest) Weigh(c *ra.Call) error {
	ids, logits := make([]uint32, c.TopK), make([]float32, c.TopK)
	for b := range c.Batches(1) {
		n := ra.ReadHits(b.First, ids, logits)
		for i := range n {
			logits[i] /= -2
		}
		ra.EmitBias(b.First, logits[:n])
	}
	return nil
}
