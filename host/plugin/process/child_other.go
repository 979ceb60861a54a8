//go:build !linux

package process

import "os"

// endWithPipe leaves it to the SDK to watch the pipe.
func endWithPipe(*os.File, int) {}

// reap waits for the process and kills what is left of its group.
func (c *child) reap() {
	err := c.cmd.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err, c.reaped = err, true
	killGroup(c.cmd.Process.Pid)
}
