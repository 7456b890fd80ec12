//go:build e2e && linux

package cluster

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Memory is what a process holds, in bytes, by a field of proc_pid_status(5): VmRSS now, VmHWM at most so far.
func Memory(t *testing.T, pid int, field string) (bytes int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, field+":"); found {
			kib, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("process %d has no %s", pid, field)
	return 0
}
