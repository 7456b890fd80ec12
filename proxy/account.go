package proxy

import (
	"cmp"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/imds"
)

// level says who must hear of an outcome: nobody (debug), whoever looks (info),
// whoever watches (warn), or somebody who must act (error).
func level(o imds.Outcome) slog.Level {
	switch o {
	case imds.OK, imds.Challenged:
		return slog.LevelDebug
	case imds.Unavailable, imds.Throttled:
		return slog.LevelWarn
	case imds.Internal:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

// level is the outcome's, unless Entra or the source refused for good: it stays
// so until someone mends it.
func (c *call) level() slog.Level {
	if c.err == nil { // errors.As costs an allocation
		return level(c.outcome)
	}
	var failed *exchange.Error
	if errors.As(c.err, &failed) && !failed.Kind.Temporary() {
		return slog.LevelError
	}
	return level(c.outcome)
}

// sent is the status of the reply.
func (c *call) sent() int { return cmp.Or(int(c.status), c.outcome.Status()) }

// account writes the request's one log line and counts it.
func (s *Server) account(r *http.Request, c *call, took time.Duration) {
	s.metrics.observe(c, took)
	at := c.level()
	if !s.cfg.Logger.Enabled(r.Context(), at) {
		return
	}
	attrs := []slog.Attr{
		slog.String("outcome", c.outcome.String()),
		slog.Int("status", c.sent()),
		slog.String("protocol", c.protocol.String()),
		slog.String("method", shown(r.Method)),
		slog.String("path", shownPath(c.path)),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000),
		slog.String("remote", r.RemoteAddr),
		slog.String("user_agent", shownPath(r.UserAgent())),
	}
	if c.key != (exchange.Key{}) {
		attrs = append(attrs,
			slog.String("client_id", c.key.ClientID),
			slog.String("tenant_id", c.key.Tenant),
			slog.String("scope", shownPath(c.key.Scope)))
	}
	s.cfg.Logger.LogAttrs(r.Context(), at, "request", append(attrs, c.failure()...)...)
}

// failure says why, in the words that the client was given too.
func (c *call) failure() []slog.Attr {
	if c.err == nil {
		return nil
	}
	attrs := []slog.Attr{slog.String("error", refusalOf(c.err).Description)}
	if c.id != "" {
		attrs = append(attrs, slog.String("correlation_id", c.id))
	}
	var failed *exchange.Error
	if errors.As(c.err, &failed) && failed.Code != "" {
		attrs = append(attrs, slog.String("code", failed.Code), slog.String("trace_id", failed.TraceID))
	}
	return attrs
}

// shown bounds what a client chose before it goes into a log line. No part that
// we know how to read is longer than a GUID by much; what is may be a token that
// ended up in the wrong place.
func shown(part string) string {
	const most = 64
	if len(part) > most {
		return strings.ToValidUTF8(part[:most/4], "") + "…"
	}
	return part
}

// shownPath is shown for each part between slashes, and for few parts.
func shownPath(path string) string {
	const most = 12
	parts := strings.Split(path, "/")
	if len(parts) > most {
		parts = append(parts[:most], "…")
	}
	for i := range parts {
		parts[i] = shown(parts[i])
	}
	return strings.Join(parts, "/")
}
