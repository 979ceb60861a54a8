//go:build !amd64

package peak

var (
	loops   map[string]Loop
	readers map[string]func(p *byte, n int)
)
