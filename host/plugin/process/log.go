package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode"
)

const (
	maxLine = 4 << 10 // bytes of a message; the rest of the line is cut off
	tail    = 5       // lines kept for error messages
)

// logger passes on what a process writes to its standard error: lines of JSON
// in the form of hclog with their level, others as they are.
type logger struct {
	to    *slog.Logger
	quiet bool // everything is a debug message
	mu    sync.Mutex
	last  []string // the latest lines that are not debug messages
}

// copy logs the lines of r until it ends.
func (l *logger) copy(r io.Reader) {
	b := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := b.ReadSlice('\n')
		if len(line) > 0 {
			l.line(strings.TrimRight(string(line), "\r\n"))
		}
		for errors.Is(err, bufio.ErrBufferFull) { // skip the rest
			_, err = b.ReadSlice('\n')
		}
		if err != nil {
			return
		}
	}
}

// Write makes a logger the output of an hclog.Logger, whose lines come whole.
func (l *logger) Write(b []byte) (int, error) {
	l.line(strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

var levels = map[string]slog.Level{
	"trace": slog.LevelDebug, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

func (l *logger) line(text string) {
	if strings.TrimSpace(text) == "" {
		return
	}
	level, args := slog.LevelInfo, []any(nil)
	if entry := object(text); entry != nil {
		name, _ := entry["@level"].(string)
		message, ok := entry["@message"].(string)
		if of, known := levels[name]; ok && known {
			level, text = of, message
			for _, k := range slices.Sorted(maps.Keys(entry)) {
				if !strings.HasPrefix(k, "@") {
					args = append(args, printable(k), entry[k])
				}
			}
		}
	}
	text = printable(text)
	if l.quiet {
		level = slog.LevelDebug
	}
	if level > slog.LevelDebug {
		l.mu.Lock()
		if l.last = append(l.last, text); len(l.last) > tail {
			l.last = l.last[1:]
		}
		l.mu.Unlock()
	}
	l.to.Log(context.Background(), level, text, args...)
}

// object reads a JSON object, nil when the text is none.
func object(text string) map[string]any {
	if !strings.HasPrefix(text, "{") {
		return nil
	}
	var m map[string]any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber() // else 3145728 is logged as 3.145728e+06
	if d.Decode(&m) != nil {
		return nil
	}
	return m
}

// said returns the last lines, for an error message.
func (l *logger) said() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.last) == 0 {
		return ""
	}
	return "; it wrote: " + strings.Join(l.last, " | ")
}

// printable replaces what would garble a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) && r != '\t' {
			return '\uFFFD'
		}
		return r
	}, s)
}

// clip shortens text of a plugin's for a message.
func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}
