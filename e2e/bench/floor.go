package main

import (
	"io"
	"net"
	"net/http"
)

// floorCommand is the argument with which this program runs as the floor.
const floorCommand = "floor"

// serveFloor is the least that a Go program can do: it answers every request
// with the body that it read at its start, under the headers of svidecar's
// reply, and keeps none of the time limits that a real server needs.
func serveFloor(address string, in io.Reader) error {
	body, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "application/json; charset=utf-8")
		h.Set("Cache-Control", "no-store")
		_, _ = w.Write(body) // net/http adds Content-Length and Date
	}))
}
