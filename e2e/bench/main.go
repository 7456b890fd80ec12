// Command bench owns the measurements in docs/benchmarks.md. It runs the built
// svidecar, a floor (a bare net/http server in a process of its own) and, if
// asked to, another sidecar against an emulated Entra, all in one run, and
// compares them. It never leaves loopback, and never leaves a process behind.
//
// Another sidecar, or another build of svidecar, is measured too if PEER_BIN names
// its binary. PEER_ARGS is its command line, PEER_URL the URL of its token
// endpoint, and PEER_READY the URL that is answered 200 once it serves, if that is
// not /readyz beside it; in all three, {port} and {ops} stand for free ports. It is
// given AZURE_CLIENT_ID, AZURE_TENANT_ID, AZURE_FEDERATED_TOKEN_FILE,
// AZURE_AUTHORITY_HOST and SSL_CERT_FILE.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// plan is how much is measured.
type plan struct {
	starts  int           // of each process
	settle  time.Duration // before a process is called idle
	rounds  int           // in which all take turns
	slice   time.Duration // of one turn
	many    int           // resources cached in a second sidecar
	failing int           // requests that Entra refuses
}

// Both plans have the burst in common, which is part of what is promised.
const burst = 1000

func main() {
	if len(os.Args) == 3 && os.Args[1] == floorCommand {
		exit(serveFloor(os.Args[2], os.Stdin))
	}
	binary := flag.String("svidecar", "bin/svidecar", "`file` to measure")
	short := flag.Bool("short", false, "measure in a quarter of the time, with more noise")
	write := flag.String("write", "", "Markdown `file` in which to replace the table, beside printing it")
	flag.Parse()
	p := plan{starts: 20, settle: time.Second, rounds: 18, slice: 250 * time.Millisecond, many: 2000, failing: 200}
	if *short {
		p = plan{starts: 5, settle: 200 * time.Millisecond, rounds: 3, slice: 150 * time.Millisecond, many: 200, failing: 200}
	}
	exit(run(p, *binary, *write))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run measures all, then writes the table.
func run(p plan, binary, file string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	w, err := newWorld(ctx, binary)
	if err != nil {
		return err
	}
	defer w.close()
	begin := time.Now()
	r, err := w.measure(p)
	if ctx.Err() != nil { // all else that failed did so because of it
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	var out bytes.Buffer
	r.write(&out, time.Since(begin))
	if _, err := io.Copy(os.Stdout, bytes.NewReader(out.Bytes())); err != nil || file == "" {
		return err
	}
	return replaceTable(file, out.Bytes())
}
