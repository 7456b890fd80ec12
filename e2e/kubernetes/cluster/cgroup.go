//go:build e2e && linux

package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	cgroups    = "svidecar-e2e-"         // and the process id of the outer run
	stateDirs  = "svidecar-e2e-cluster-" // and the process id, and chance
)

// makeCgroup makes a group for the cluster's pods, so that two clusters do not take each other's for orphans.
func makeCgroup(pid int) (name string, err error) {
	name = cgroups + strconv.Itoa(pid)
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		return name, makeUnified(name)
	}
	hierarchies, err := filepath.Glob(filepath.Join(cgroupRoot, "*", "cgroup.procs"))
	if err != nil || len(hierarchies) == 0 {
		return "", fmt.Errorf("no cgroup hierarchy under %s (%v)", cgroupRoot, err)
	}
	for _, procs := range hierarchies {
		parent := filepath.Dir(procs)
		group := filepath.Join(parent, name)
		if err := os.Mkdir(group, 0o755); errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrExist) {
			continue // cpu and cpuacct may be one hierarchy by two names
		} else if err != nil {
			return "", err
		}
		if err := inheritCpuset(parent, group); err != nil {
			return "", err
		}
	}
	return name, nil
}

// makeUnified makes a group of cgroup v2, to whose children all controllers are delegated.
func makeUnified(name string) error {
	available, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
	if err != nil {
		return err
	}
	enable := "+" + strings.Join(strings.Fields(string(available)), " +")
	if err := os.Mkdir(filepath.Join(cgroupRoot, name), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, dir := range []string{cgroupRoot, filepath.Join(cgroupRoot, name)} {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(enable), 0); err != nil {
			return fmt.Errorf("delegating cgroup controllers: %w", err)
		}
	}
	return nil
}

// inheritCpuset fills what is empty in a new group of cgroup v1's cpuset, which no process can enter before.
func inheritCpuset(parent, group string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, file))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(group, file), value, 0); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroup removes the groups of a cluster that has ended.
func removeCgroup(name string) {
	found, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", name))
	for _, top := range append(found, filepath.Join(cgroupRoot, name)) {
		var dirs []string
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- { // children first
			_ = os.Remove(dirs[i])
		}
	}
}

// removeStale removes what runs left that were killed before they could.
func removeStale() {
	groups, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", cgroups+"*"))
	unified, _ := filepath.Glob(filepath.Join(cgroupRoot, cgroups+"*"))
	for _, dir := range append(groups, unified...) {
		if name := filepath.Base(dir); gone(strings.TrimPrefix(name, cgroups)) {
			removeCgroup(name)
		}
	}
	states, _ := filepath.Glob(filepath.Join(os.TempDir(), stateDirs+"*"))
	for _, dir := range states {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), stateDirs), "-")
		if gone(pid) {
			_ = os.RemoveAll(dir)
		}
	}
}

// gone reports whether there is no such process.
func gone(pid string) bool {
	_, err := strconv.Atoi(pid)
	_, missing := os.Stat(filepath.Join("/proc", pid))
	return err == nil && errors.Is(missing, fs.ErrNotExist)
}
