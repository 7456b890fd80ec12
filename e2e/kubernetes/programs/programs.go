// Package programs owns the foreign programs that the cluster's tests run: it builds each once from its module, and
// keeps it outside of the checkout. It never takes a binary that somebody else built.
package programs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/gofrs/flock"
)

// Program is one of the folders beside this one that have a go.mod of their own.
type Program struct {
	Name   string // of the folder, and of the binary
	module string // whose version it has
	pkg    string // the main package
	stamp  string // package whose variables tell the version; empty: none is told
	cost   string // of building it with nothing in the build cache
}

// All are the programs that there are.
func All() []Program {
	return []Program{
		{Name: "hyperkube", module: "k8s.io/kubernetes", pkg: ".", stamp: "k8s.io/component-base/version", cost: "20 CPU-minutes"},
		{Name: "helm", module: "helm.sh/helm/v4", pkg: "helm.sh/helm/v4/cmd/helm", cost: "6 CPU-minutes"},
	}
}

// Path gives the path of a program's binary, which it builds if this machine has none of the same source, compiler and
// machine. It builds for many minutes, and tells progress that it does. The source is in folder, that of all programs.
func (p Program) Path(ctx context.Context, folder string, progress func(string)) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	version, sum, err := p.identify(ctx, filepath.Join(folder, p.Name))
	if err != nil {
		return "", fmt.Errorf("%s: %w", p.Name, err)
	}
	dir := filepath.Join(cache, "svidecar", fmt.Sprintf("%s-%s-%s", p.Name, version, sum))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	binary := filepath.Join(dir, p.Name)
	lock := flock.New(binary + ".lock") // two packages' tests may want it at once
	if err := lock.Lock(); err != nil {
		return "", err
	}
	defer lock.Unlock()
	if _, err := os.Stat(binary); !errors.Is(err, fs.ErrNotExist) {
		return binary, err
	}
	progress(fmt.Sprintf("building %s %s: this takes up to %s, once", p.Name, version, p.cost))
	return binary, p.build(ctx, filepath.Join(folder, p.Name), version, binary)
}

// identify gives the version, and a digest of all that makes one binary differ from another.
func (p Program) identify(ctx context.Context, dir string) (version, sum string, err error) {
	h := sha256.New()
	for _, pattern := range []string{"go.mod", "go.sum", "*.go"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return "", "", err
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				return "", "", err
			}
			fmt.Fprintf(h, "%s %d\n%s", filepath.Base(file), len(data), data)
			if pattern == "go.mod" {
				version = versionOf(p.module, string(data))
			}
		}
	}
	if version == "" {
		return "", "", fmt.Errorf("%s/go.mod requires no %s", dir, p.module)
	}
	environment, err := goCommand(ctx, dir, "env", "GOVERSION", "GOOS", "GOARCH").Output()
	if err != nil {
		return "", "", fmt.Errorf("go env: %w", err)
	}
	fmt.Fprintf(h, "%s %q", environment, p.flags(version))
	return version, fmt.Sprintf("%x", h.Sum(nil)[:6]), nil
}

// versionOf finds a module's version among the requirements of a go.mod.
func versionOf(module, gomod string) string {
	found := regexp.MustCompile(`(?m)^(?:require\s+|\s+)` + regexp.QuoteMeta(module) + `\s+(v\S+)`).FindStringSubmatch(gomod)
	if found == nil {
		return ""
	}
	return found[1]
}

// flags are those of go build. A Kubernetes that does not know its version is refused by its own parts.
func (p Program) flags(version string) []string {
	link := "-s -w"
	if p.stamp != "" {
		number := strings.Split(strings.TrimPrefix(version, "v"), ".")
		for _, set := range []string{"gitVersion=" + version, "gitMajor=" + number[0], "gitMinor=" + number[1], "gitTreeState=clean"} {
			link += " -X " + p.stamp + "." + set
		}
	}
	return []string{"-trimpath", "-buildvcs=false", "-ldflags", link}
}

func (p Program) build(ctx context.Context, dir, version, binary string) error {
	unfinished := binary + ".new"
	args := append([]string{"build", "-o", unfinished}, p.flags(version)...)
	if out, err := goCommand(ctx, dir, append(args, p.pkg)...).CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", p.Name, err, out)
	}
	return os.Rename(unfinished, binary)
}

func goCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
	return cmd
}
