// Command pack makes archives of the Dockerfile's images, for a machine without a container daemon. It never pushes
// them: skopeo does.
//
//	go run ./deploy/image/pack -o bin/images -version v1.2.3 svidecar
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/svidecar/svidecar/deploy/image"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var b image.Build
	flag.StringVar(&b.Dir, "C", ".", "top `folder` of the checkout")
	flag.StringVar(&b.Version, "version", "dev", "`version` that binary and image tell, and the image's tag")
	flag.StringVar(&b.Roots, "roots", "", "PEM `file` of the certificate authorities to trust; if not given, this machine's")
	registry := flag.String("registry", "localhost", "`prefix` of the images' names")
	machines := flag.String("arch", "amd64,arm64", "`architectures`, separated by commas")
	out := flag.String("o", "bin/images", "`folder` to write to")
	flag.Parse()
	targets := flag.Args()
	if len(targets) == 0 {
		targets = commands(b.Dir)
	}
	if err := pack(ctx, b, *registry, *out, targets, strings.Split(*machines, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

// commands are the folders of cmd and examples: the Dockerfile has a target for each.
func commands(dir string) (names []string) {
	for _, folder := range []string{"cmd", "examples"} {
		mains, _ := filepath.Glob(filepath.Join(dir, folder, "*", "main.go"))
		for _, m := range mains {
			names = append(names, filepath.Base(filepath.Dir(m)))
		}
	}
	return names
}

func pack(ctx context.Context, b image.Build, registry, out string, targets, machines []string) error {
	if len(targets) == 0 {
		return errors.New("no commands here: run it at the top of the checkout, or say where that is by -C")
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, target := range targets {
		for _, machine := range machines {
			b.Target, b.Architecture, b.Reference = target, machine, registry+"/"+target+":"+b.Version
			if err := one(ctx, b, filepath.Join(out, target+"-"+machine+".tar")); err != nil {
				return err
			}
		}
	}
	return nil
}

// one writes an archive, and says what a reviewer wants to know of it.
func one(ctx context.Context, b image.Build, file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	digest, err := b.Pack(ctx, f)
	info, _ := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	fmt.Printf("%s %s %s %.1f MB\n", file, b.Reference, digest, float64(info.Size())/1e6)
	return nil
}
