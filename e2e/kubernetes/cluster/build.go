//go:build e2e && linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/svidecar/svidecar/deploy/image"
	"github.com/svidecar/svidecar/e2e/kubernetes/programs"
)

// Image is an image that pods can run.
type Image struct {
	// Name is that of the image. Without a Package it is a target of the project's Dockerfile.
	Name string
	// Package is the Go package of a program that the project does not release, from the top of the checkout:
	// ./e2e/kubernetes/app. Its image has the static binary alone, at /Name.
	Package string
}

// Ref is the reference of an image of Config in manifests.
func Ref(name string) string { return "e2e.invalid/" + name + ":e2e" }

// pause is the image that holds a pod's namespaces.
const pause = "pause"

// roles are the names by which the one Kubernetes binary is called.
var roles = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet"}

// prepare builds everything into the cluster's folder: within the namespaces no module can be fetched.
func prepare(cfg Config, dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	top, err := checkout(ctx)
	if err != nil {
		return err
	}
	if err := linkPrograms(ctx, top, dir, cfg.Helm); err != nil {
		return err
	}
	plugin := filepath.Join(dir, "cnibin", "podlo")
	if err := build(ctx, top, "./e2e/kubernetes/podlo", plugin); err != nil {
		return err
	}
	if err := os.Symlink("podlo", filepath.Join(dir, "cnibin", "loopback")); err != nil {
		return err
	}
	for _, i := range append([]Image{{Name: pause, Package: "./e2e/kubernetes/pause"}}, cfg.Images...) {
		if err := i.pack(ctx, top, filepath.Join(dir, "images")); err != nil {
			return err
		}
	}
	return nil
}

// checkout is the top folder of the module.
func checkout(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("go list -m: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// linkPrograms makes bin, with each foreign program under the names that it is called by.
func linkPrograms(ctx context.Context, top, dir string, helm bool) error {
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		return err
	}
	for _, p := range programs.All() {
		names := []string{p.Name}
		switch {
		case p.Name == "hyperkube":
			names = roles
		case p.Name == "helm" && !helm:
			continue
		}
		binary, err := p.Path(ctx, filepath.Join(top, "e2e", "kubernetes"), func(s string) { fmt.Fprintln(os.Stderr, "e2e/kubernetes:", s) })
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := os.Symlink(binary, filepath.Join(dir, "bin", name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// build makes a static binary.
func build(ctx context.Context, top, pkg, binary string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, pkg)
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// pack writes the image's archive into a folder.
func (i Image) pack(ctx context.Context, top, folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	archive, err := os.Create(filepath.Join(folder, i.Name+".tar"))
	if err != nil {
		return err
	}
	if i.Package == "" {
		_, err = image.Build{Dir: top, Target: i.Name, Reference: Ref(i.Name), Architecture: runtime.GOARCH}.Pack(ctx, archive)
	} else {
		err = i.packPlain(ctx, top, filepath.Join(folder, i.Name), archive)
	}
	return errors.Join(err, archive.Close())
}

func (i Image) packPlain(ctx context.Context, top, binary string, archive io.Writer) error {
	if err := build(ctx, top, i.Package, binary); err != nil {
		return err
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	_, err = image.Write(archive, image.Config{
		Reference: Ref(i.Name), Architecture: runtime.GOARCH, User: "65532:65532", Entrypoint: []string{"/" + i.Name},
		Files: []image.File{{Path: "/" + i.Name, Mode: 0o755, Data: data}},
	})
	return err
}
