package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// Build says which image of a Dockerfile to make, and for whom.
type Build struct {
	Dir          string // top of the checkout, with the Dockerfile; required
	Target       string // stage, and the binary that its ENTRYPOINT starts; required
	Reference    string // see Config
	Architecture string // see Config
	Version      string // that the binary and the image tell; empty: dev
	Roots        string // PEM file of the certificate authorities to trust; empty: this machine's
}

// roots is where Debian, and so Go's own build image, has them.
const roots = "/etc/ssl/certs/ca-certificates.crt"

// Pack writes the archive of the image that the Dockerfile describes, whose binaries it builds with the go command here
// rather than in a container, by the flags that the Dockerfile has. It gives the digest of [Write].
func (b Build) Pack(ctx context.Context, w io.Writer) (digest string, err error) {
	if b.Dir == "" || b.Target == "" {
		return "", errors.New("image: Build.Dir and Build.Target are required")
	}
	if b.Version == "" {
		b.Version = "dev"
	}
	if b.Roots == "" {
		b.Roots = roots
	}
	text, err := os.ReadFile(filepath.Join(b.Dir, "Dockerfile"))
	if err != nil {
		return "", fmt.Errorf("image: %w", err)
	}
	r, err := readRecipe(string(text), b.Target, map[string]string{"VERSION": b.Version})
	if err != nil {
		return "", fmt.Errorf("image: %w", err)
	}
	cfg := Config{
		Reference: b.Reference, Architecture: b.Architecture, User: r.user, Entrypoint: r.entrypoint,
		Command: r.command, Ports: r.ports, Labels: r.labels,
	}
	for _, c := range r.copies {
		f, err := b.make(ctx, c)
		if err != nil {
			return "", fmt.Errorf("image: %w", err)
		}
		cfg.Files = append(cfg.Files, f)
	}
	return Write(w, cfg)
}

// make gives a file that the Dockerfile copies from its build stage.
func (b Build) make(ctx context.Context, c copied) (File, error) {
	switch {
	case c.source == roots:
		data, err := os.ReadFile(b.Roots)
		return File{Path: c.path, Mode: 0o644, Data: data}, err
	case path.Dir(c.source) == "/out":
		data, err := b.binary(ctx, path.Base(c.source))
		return File{Path: c.path, Mode: 0o755, Data: data}, err
	}
	return File{}, fmt.Errorf("only /out/NAME and %s can be copied by the Dockerfile, not %s", roots, c.source)
}

// binary builds a command statically.
func (b Build) binary(ctx context.Context, name string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "svidecar-image-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, name)
	pkg := "./cmd/" + name
	if _, err := os.Stat(filepath.Join(b.Dir, pkg)); err != nil {
		pkg = "./examples/" + name
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "grpcnotrace", "-ldflags", "-s -w -X main.release="+b.Version, "-o", file, pkg)
	cmd.Dir = b.Dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+b.Architecture)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build %s: %w: %s", pkg, err, strings.TrimSpace(string(out)))
	}
	return os.ReadFile(file)
}
