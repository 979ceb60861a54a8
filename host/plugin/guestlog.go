package plugin

import (
	"bytes"
	"context"
	"log/slog"

	abi "github.com/retrievalattention/ra/sdk/abi/v1"
)

// keptOutput is how much of what a guest writes to its standard output and
// error in one call is kept for error messages: its beginning, where a Go
// panic says why.
const keptOutput = 512

var logLevels = [...]slog.Level{
	abi.LogDebug: slog.LevelDebug, abi.LogInfo: slog.LevelInfo, abi.LogWarn: slog.LevelWarn, abi.LogError: slog.LevelError,
}

func (in *instance) hostLog(a args) {
	level := a.u32(0)
	if int64(level) >= int64(len(logLevels)) {
		in.trap(ErrCall, "level %d, want 0 to %d", level, len(logLevels)-1)
	}
	n := min(a.u32(2), abi.MaxLogText)
	in.logLine(logLevels[level], in.bytes("text", a.u32(1), uint64(n)))
}

// logLine passes one line of the guest's on, up to the limit of a call.
func (in *instance) logLine(level slog.Level, text []byte) {
	switch in.call.logLines++; {
	case in.call.logLines <= abi.MaxLogLines:
		in.p.log.Log(context.Background(), level, printable(string(text)), "from", "guest")
	case in.call.logLines == abi.MaxLogLines+1:
		in.p.log.Warn("further messages of this call are dropped", "export", in.call.export, "limit", abi.MaxLogLines)
	}
}

// write takes what the guest writes to descriptor 1 or 2.
func (in *instance) write(b []byte) {
	c := &in.call
	c.stderr = append(c.stderr, b[:min(len(b), keptOutput-len(c.stderr))]...)
	for len(b) > 0 && c.logLines <= abi.MaxLogLines {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			c.line = append(c.line, b[:min(len(b), abi.MaxLogText-len(c.line))]...)
			return
		}
		c.line = append(c.line, b[:min(i, abi.MaxLogText-len(c.line))]...)
		b = b[i+1:]
		in.flushOutput()
	}
}

// flushOutput logs the line begun.
func (in *instance) flushOutput() {
	if len(in.call.line) > 0 {
		in.logLine(slog.LevelInfo, in.call.line)
		in.call.line = in.call.line[:0]
	}
}
