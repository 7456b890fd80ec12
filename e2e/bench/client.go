package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// replyLimit bounds every read and write of a client.
const replyLimit = 30 * time.Second

// client speaks just enough HTTP/1.1 to cost little, and the same to all.
type client struct {
	net.Conn
	buf []byte
}

// dial opens n connections and asks for nothing.
func dial(ctx context.Context, address string, n int) ([]*client, error) {
	clients := make([]*client, 0, n)
	for range n {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			hangUp(clients)
			return nil, err
		}
		clients = append(clients, &client{conn, make([]byte, 16<<10)})
	}
	return clients, nil
}

func hangUp(clients []*client) {
	for _, c := range clients {
		_ = c.Close()
	}
}

// limit bounds what the client does next. It is not set for each request, to
// keep the client cheap.
func (c *client) limit() error { return c.SetDeadline(time.Now().Add(replyLimit)) }

// ask sends a request and returns the reply, which is good until the next one.
func (c *client) ask(request []byte) ([]byte, error) {
	if _, err := c.Write(request); err != nil {
		return nil, err
	}
	have := 0
	for {
		n, err := c.Read(c.buf[have:])
		if err != nil {
			return nil, err
		}
		have += n
		whole, err := isWhole(c.buf[:have])
		if err != nil || whole {
			return c.buf[:have], err
		}
	}
}

// isWhole reports whether b is all of a reply.
func isWhole(b []byte) (bool, error) {
	header, body, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	if !ok {
		return false, nil
	}
	_, rest, ok := bytes.Cut(header, []byte("\r\nContent-Length: "))
	if !ok { // chunked
		return bytes.HasSuffix(body, []byte("\r\n0\r\n\r\n")), nil
	}
	digits, _, _ := bytes.Cut(rest, []byte("\r\n"))
	length, err := strconv.Atoi(string(digits))
	if err != nil {
		return false, fmt.Errorf("reply with Content-Length %q", digits)
	}
	return len(body) >= length, nil
}

// status is the reply's status, or 0 if it has none.
func status(reply []byte) int {
	const prefix = len("HTTP/1.1 ")
	if len(reply) < prefix+3 {
		return 0
	}
	code, err := strconv.Atoi(string(reply[prefix : prefix+3]))
	if err != nil {
		return 0
	}
	return code
}

// sample is what one turn measured.
type sample struct {
	requests int
	rate     float64 // requests per second
	p50, p99 float64 // seconds
}

// load keeps every client busy for the time given with the requests in turn.
// Any reply but a 200 is an error.
func load(clients []*client, requests [][]byte, during time.Duration) (sample, error) {
	var running sync.WaitGroup
	took := make([][]float64, len(clients))
	errs := make([]error, len(clients))
	start := time.Now()
	for i, c := range clients {
		running.Go(func() { took[i], errs[i] = c.loop(requests, i, start.Add(during)) })
	}
	running.Wait()
	elapsed := time.Since(start).Seconds()
	all := slices.Concat(took...)
	if err := errors.Join(errs...); err != nil {
		return sample{}, err
	}
	slices.Sort(all)
	n := len(all)
	return sample{n, float64(n) / elapsed, all[n/2], all[n*99/100]}, nil
}

// loop asks until the end and returns what each request took. One reading of the
// clock ends a request and begins the next.
func (c *client) loop(requests [][]byte, first int, end time.Time) (took []float64, err error) {
	const stride = 7 // coprime to how many there are, so that all have their turn
	if err := c.limit(); err != nil {
		return nil, err
	}
	before := time.Now()
	for i := first; before.Before(end) || len(took) == 0; i += stride {
		reply, err := c.ask(requests[i%len(requests)])
		if err != nil {
			return nil, err
		}
		if code := status(reply); code != 200 {
			return nil, fmt.Errorf("HTTP %d under load", code)
		}
		now := time.Now()
		took = append(took, now.Sub(before).Seconds())
		before = now
	}
	return took, nil
}

// atOnce sends one request on each client, all together, and counts the
// statuses; 0 stands for no reply.
func atOnce(clients []*client, requests [][]byte) map[int]int {
	var running sync.WaitGroup
	statuses := make([]int, len(clients))
	for i, c := range clients {
		running.Go(func() { statuses[i] = c.statusOf(requests[i%len(requests)]) })
	}
	running.Wait()
	return tally(statuses)
}

// inTurn sends n requests over the clients, one after the other on each.
func inTurn(clients []*client, request []byte, n int) map[int]int {
	var running sync.WaitGroup
	var next atomic.Int64
	statuses := make([]int, n)
	for _, c := range clients {
		running.Go(func() {
			for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
				statuses[i-1] = c.statusOf(request)
			}
		})
	}
	running.Wait()
	return tally(statuses)
}

func (c *client) statusOf(request []byte) int {
	if err := c.limit(); err != nil {
		return 0
	}
	reply, err := c.ask(request)
	if err != nil {
		return 0
	}
	return status(reply)
}

func tally(statuses []int) map[int]int {
	counts := map[int]int{}
	for _, code := range statuses {
		counts[code]++
	}
	return counts
}
