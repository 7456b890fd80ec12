package proxy

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// TestServersAreBounded looks at the servers as they are made: to wait for each
// bound would take longer than the tests may.
func TestServersAreBounded(t *testing.T) {
	s := &Server{cfg: Config{Logger: slog.New(slog.DiscardHandler)}}
	got := s.httpServer(http.NotFoundHandler())
	for name, bound := range map[string]struct{ got, most time.Duration }{
		"ReadHeaderTimeout": {got.ReadHeaderTimeout, 10 * time.Second},
		"ReadTimeout":       {got.ReadTimeout, 30 * time.Second},
		"WriteTimeout":      {got.WriteTimeout, time.Minute},
		"IdleTimeout":       {got.IdleTimeout, 5 * time.Minute},
	} {
		if bound.got <= 0 || bound.got > bound.most {
			t.Errorf("%s is %v, want a bound of at most %v", name, bound.got, bound.most)
		}
	}
	if got.WriteTimeout <= 30*time.Second {
		t.Errorf("WriteTimeout %v cuts off the longest exchange", got.WriteTimeout)
	}
	if got.MaxHeaderBytes <= 0 || got.MaxHeaderBytes > 64<<10 {
		t.Errorf("MaxHeaderBytes is %d", got.MaxHeaderBytes)
	}
}

// TestSlowHeadersAreCutOff: a client that drips its headers is gone after
// ReadHeaderTimeout, whatever it has sent by then.
func TestSlowHeadersAreCutOff(t *testing.T) {
	t.Parallel() // it mostly waits
	s := &Server{cfg: Config{Logger: slog.New(slog.DiscardHandler)}}
	server := s.httpServer(http.NotFoundHandler())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	defer func() {
		_ = server.Close()
		<-done
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(readHeaderTimeout + 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	_, err = io.ReadAll(conn)
	if took := time.Since(begun); errors.Is(err, os.ErrDeadlineExceeded) || took < readHeaderTimeout-time.Second {
		t.Errorf("the connection ended after %v with %v, want about %v", took, err, readHeaderTimeout)
	}
}
