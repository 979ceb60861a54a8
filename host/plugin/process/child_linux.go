package process

import (
	"os"

	"golang.org/x/sys/unix"
)

// endWithPipe makes the kernel kill the process group when the other end of
// the pipe is closed, which it is when the host ends in whatever way. The
// setting belongs to the open pipe, which the process inherited; a death
// signal (PR_SET_PDEATHSIG) would belong to the host's thread, come when that
// ends, and spare the process's children.
func endWithPipe(r *os.File, group int) {
	// On an error (the process has ended already) the SDK's watchdog remains.
	fd := r.Fd()
	if _, err := unix.FcntlInt(fd, unix.F_SETOWN, -group); err != nil {
		return
	}
	if _, err := unix.FcntlInt(fd, unix.F_SETSIG, int(unix.SIGKILL)); err != nil {
		return
	}
	_, _ = unix.FcntlInt(fd, unix.F_SETFL, unix.O_ASYNC)
}

// reap waits for the process and kills what is left of its group before the
// process id can be given to another.
func (c *child) reap() {
	pid := c.cmd.Process.Pid
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	killGroup(pid)
	c.err = c.cmd.Wait()
	c.reaped = true
}
