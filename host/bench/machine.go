package bench

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/retrievalattention/ra/host/kernel"
)

// Machine says where figures were taken and by what.
type Machine struct {
	CPU      string `json:"cpu"` // as the system names it; "" when it does not
	OS       string `json:"os"`
	Arch     string `json:"arch"`
	Threads  int    `json:"threads"` // most cores in use: GOMAXPROCS
	Level    string `json:"kernel_level"`
	Go       string `json:"go"`
	Version  string `json:"version"`            // of ra, as the build recorded it
	Revision string `json:"revision,omitempty"` // commit; "+dirty" when files differed from it
}

// ThisMachine describes the machine and the program.
func ThisMachine() Machine {
	m := Machine{
		CPU: procField("/proc/cpuinfo", "model name"), OS: runtime.GOOS, Arch: runtime.GOARCH,
		Threads: runtime.GOMAXPROCS(0), Level: kernel.Level(), Go: runtime.Version(), Version: "unknown",
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return m
	}
	m.Version = info.Main.Version
	dirty := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			m.Revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+dirty"
		}
	}
	if m.Revision != "" {
		m.Revision += dirty
	}
	return m
}

// procField returns the value of the first line "field : value" of a file
// like /proc/cpuinfo, "" where there is none.
func procField(file, field string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(data) {
		name, value, ok := strings.Cut(string(line), ":")
		if ok && strings.TrimSpace(name) == field {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// AvailableMemory returns the bytes that a new allocation can have without
// swapping, or 0 when the system does not tell.
func AvailableMemory() int64 {
	kib, err := strconv.ParseInt(strings.TrimSuffix(procField("/proc/meminfo", "MemAvailable"), " kB"), 10, 64)
	if err != nil {
		return 0
	}
	available := kib << 10
	// A container may be allowed less than the machine has.
	limit, ok1 := readInt("/sys/fs/cgroup/memory.max")
	used, ok2 := readInt("/sys/fs/cgroup/memory.current")
	if ok1 && ok2 {
		available = min(available, max(limit-used, 1))
	}
	return available
}

func readInt(file string) (int64, bool) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n, err == nil
}
