// Command svidecar owns the program that runs beside an app: it wires
// configuration, sources of assertions, the exchange and the local server
// together. It never implements any of them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
)

func main() {
	collectLess()
	// The first signal asks for an orderly end; once that has begun, a
	// second one ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:]))
}

// exitCode is the status of a command that svidecar ran, passed on without a
// message of ours.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("the command ended with status %d", int(c)) }

func run(ctx context.Context, args []string) int {
	root := rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(os.Stderr, "svidecar: %s\n", strings.TrimSpace(line))
	}
	return 1
}

// collectLess lets the heap, which is a few megabytes, double once more before
// it is collected: under load that halves the collections, and at rest it costs
// nothing. GOGC outranks it.
func collectLess() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(200)
	}
}
