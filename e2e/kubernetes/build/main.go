// Command build builds the foreign programs of the cluster's tests, unless this machine has them, and prints where they
// are. It never tests anything: it exists so that the minutes that this takes are not taken from the tests' own bound.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/svidecar/svidecar/e2e/kubernetes/programs"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for _, p := range programs.All() {
		path, err := p.Path(ctx, "e2e/kubernetes", func(s string) { fmt.Fprintln(os.Stderr, "e2e/kubernetes:", s) })
		if err != nil {
			fmt.Fprintln(os.Stderr, "e2e/kubernetes:", err)
			os.Exit(1)
		}
		fmt.Println(path)
	}
}
