package proxy

import (
	"log/slog"
	"net/http"
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
