// Package process is the SDK for search plugins that are processes of their
// own, written in Go. A plugin implements [Search] and calls [Serve]; the
// contract with the host is described in sdk/process/v1.
//
//	type flat struct{ process.NoIndex }
//
//	func (flat) Search(ctx context.Context, c *process.Call) error { ... }
//
//	func main() {
//		process.Serve(process.Description{Name: "flat", Version: "1.0.0", Features: []string{"keys"}}, flat{})
//	}
//
// Keys and values are read in place, in memory that the host shares. Standard
// output belongs to the handshake; what goes to standard error, package log
// and log/slog included, appears in the host's log.
package process
