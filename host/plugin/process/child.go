package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/retrievalattention/ra/host/plugin"
	contract "github.com/retrievalattention/ra/sdk/process/v1"
)

// firstFD is the number that the first file of exec.Cmd.ExtraFiles gets.
const firstFD = 3

// child is one process of a plugin. It is the runner of go-plugin's client,
// because go-plugin's own hands down the host's standard input and makes no
// process group.
type child struct {
	cmd    *exec.Cmd
	log    *logger
	socket string // the folder that the plugin's socket must lie in
	out    *os.File
	first  firstLine
	life   *os.File // the writing end of the lifeline

	done chan struct{} // closed when the process has ended
	err  error         // why, valid after done

	mu     sync.Mutex
	reaped bool // the process id is no longer ours
}

// Start starts the process and the goroutines that wait for it.
func (c *child) Start(context.Context) error {
	var files []*os.File // to be closed here once the process has its own
	closeFiles := func() {
		for _, f := range files {
			f.Close()
		}
	}
	pipe := func() (r, w *os.File, err error) {
		if r, w, err = os.Pipe(); err == nil {
			files = append(files, r, w)
		}
		return r, w, err
	}
	out, outW, err1 := pipe()
	errR, errW, err2 := pipe()
	lifeR, life, err3 := pipe()
	if err := errors.Join(err1, err2, err3); err != nil {
		closeFiles()
		return err
	}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = nil, outW, errW
	c.cmd.ExtraFiles = append([]*os.File{lifeR}, c.cmd.ExtraFiles...)
	c.cmd.Env = append(c.cmd.Env, contract.LifelineEnv+"="+strconv.Itoa(firstFD))
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		closeFiles()
		return startError(c.cmd, err)
	}
	endWithPipe(lifeR, c.cmd.Process.Pid)
	for _, f := range []*os.File{outW, errW, lifeR} {
		f.Close()
	}
	c.out, c.life = out, life
	logged := make(chan struct{})
	go func() {
		c.log.copy(errR)
		close(logged)
	}()
	go c.wait(errR, logged)
	return nil
}

// wait ends the group once its leader has ended, and collects what it wrote.
func (c *child) wait(errR *os.File, logged chan struct{}) {
	c.reap()
	// The pipes end now, unless something left the group and holds them.
	soon := time.Now().Add(time.Second)
	errR.SetReadDeadline(soon)
	c.out.SetReadDeadline(soon)
	<-logged
	errR.Close()
	c.life.Close()
	close(c.done)
}

// kill ends the process and all of its group.
func (c *child) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.reaped && c.cmd.Process != nil {
		killGroup(c.cmd.Process.Pid)
	}
}

func killGroup(pid int) { _ = unix.Kill(-pid, unix.SIGKILL) } // gone already: as good

// status says how the process ended and what it wrote last. It waits for a
// process that is about to end.
func (c *child) status() string {
	select {
	case <-c.done:
	case <-time.After(time.Second):
		return "the connection to the process was lost" + c.log.said()
	}
	how := "exit status 0"
	if c.err != nil {
		how = c.err.Error()
	}
	return "the process ended: " + how + c.log.said()
}

// startError says what to do about a file that cannot be run.
func startError(cmd *exec.Cmd, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %s is not executable; run chmod +x on it, or set interpreter", plugin.ErrStart, cmd.Path)
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%w: %s is no program of this machine; build it for this system, begin a script with #!, or set interpreter", plugin.ErrStart, cmd.Path)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s, or the interpreter that its first line names, does not exist", plugin.ErrStart, cmd.Path)
	}
	return fmt.Errorf("%w: %w", plugin.ErrStart, err)
}

// The rest makes child a runner.Runner.

func (c *child) Wait(context.Context) error { <-c.done; return c.err }

func (c *child) Kill(context.Context) error { c.kill(); return nil }

func (c *child) Stdout() io.ReadCloser { return readCloser{io.TeeReader(c.out, &c.first), c.out} }

// Stderr is empty: the logger reads it.
func (c *child) Stderr() io.ReadCloser { return io.NopCloser(bytes.NewReader(nil)) }

func (c *child) Name() string { return c.cmd.Path }

func (c *child) ID() string {
	if c.cmd.Process == nil {
		return ""
	}
	return strconv.Itoa(c.cmd.Process.Pid)
}

func (c *child) Diagnose(context.Context) string { return "" }

// PluginToHost accepts a socket in the folder made for it and nothing else: a
// plugin does not choose whom the host connects to.
func (c *child) PluginToHost(network, address string) (string, string, error) {
	if network != "unix" || filepath.Dir(filepath.Clean(address)) != c.socket {
		return "", "", fmt.Errorf("it listens on %s %s, not on a unix socket in %s", clip(network, 16), clip(address, 128), c.socket)
	}
	return network, address, nil
}

func (c *child) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

// firstLine keeps the beginning of what is written to it, for error messages.
type firstLine struct {
	mu   sync.Mutex
	text []byte
}

func (f *firstLine) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.text = append(f.text, b[:min(len(b), 256-len(f.text))]...)
	return len(b), nil
}

// line returns the first line, and whether there is any text.
func (f *firstLine) line() (string, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	line, _, _ := strings.Cut(string(f.text), "\n")
	return line, len(f.text) > 0
}
