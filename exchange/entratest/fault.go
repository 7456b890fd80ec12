package entratest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// DiscoveryScope is the scope under which SetFault reaches the OpenID
// configuration endpoint instead of the token endpoint.
const DiscoveryScope = "discovery"

const (
	anyScope   = "*"
	maxLatency = 5 * time.Minute
	maxFaults  = 1000
)

// Fault makes an endpoint misbehave. The zero value does nothing. Of the
// fields Hang to AADSTS at most one is set, save that Status may override the
// status of AADSTS or EchoAssertion; Latency goes with any. In JSON, durations
// are strings such as "250ms".
type Fault struct {
	// Latency delays the reply; at most 5 min.
	Latency time.Duration
	// Hang sends no reply until the client gives up or the server closes.
	Hang bool
	// Reset closes the connection by a TCP reset, without a reply.
	Reset bool
	// Garbage replies 200 with a body that is not JSON.
	Garbage bool
	// Truncate replies 200 with less body than its Content-Length.
	Truncate bool
	// Huge replies 200 with a JSON body that never ends.
	Huge bool
	// Redirect replies 307 to this URL, which makes a careless client post the
	// assertion there.
	Redirect string
	// EchoAssertion refuses, with a description that contains the received
	// client_assertion.
	EchoAssertion bool
	// AADSTS refuses with this code, one of Codes.
	AADSTS int
	// Status replies with this HTTP status, 400 to 599. Alone, it brings
	// Entra's body for 429, 503 and 504, and a gateway's HTML otherwise.
	Status int
	// RetryAfter is the Retry-After header of a refusal: seconds or a date.
	RetryAfter string
	// ExpiresIn replaces a granted token's lifetime and expires_in; whole
	// seconds, may be negative. Zero leaves them.
	ExpiresIn time.Duration
	// RefreshIn replaces refresh_in in a granted reply; whole seconds. Zero
	// leaves it.
	RefreshIn time.Duration
	// OmitExpiresIn and OmitRefreshIn leave the member out of a granted reply.
	OmitExpiresIn, OmitRefreshIn bool
	// Times is how many requests the fault meets. Zero: all until cleared.
	Times int
}

// faultJSON is Fault's JSON form.
type faultJSON struct {
	Latency       string `json:"latency,omitempty"`
	Hang          bool   `json:"hang,omitempty"`
	Reset         bool   `json:"reset,omitempty"`
	Garbage       bool   `json:"garbage,omitempty"`
	Truncate      bool   `json:"truncate,omitempty"`
	Huge          bool   `json:"huge,omitempty"`
	Redirect      string `json:"redirect,omitempty"`
	EchoAssertion bool   `json:"echo_assertion,omitempty"`
	AADSTS        int    `json:"aadsts,omitempty"`
	Status        int    `json:"status,omitempty"`
	RetryAfter    string `json:"retry_after,omitempty"`
	ExpiresIn     string `json:"expires_in,omitempty"`
	RefreshIn     string `json:"refresh_in,omitempty"`
	OmitExpiresIn bool   `json:"omit_expires_in,omitempty"`
	OmitRefreshIn bool   `json:"omit_refresh_in,omitempty"`
	Times         int    `json:"times,omitempty"`
}

// MarshalJSON writes the fields that are set.
func (f Fault) MarshalJSON() ([]byte, error) {
	duration := func(d time.Duration) string {
		if d == 0 {
			return ""
		}
		return d.String()
	}
	return json.Marshal(faultJSON{
		Latency: duration(f.Latency), Hang: f.Hang, Reset: f.Reset, Garbage: f.Garbage, Truncate: f.Truncate,
		Huge: f.Huge, Redirect: f.Redirect, EchoAssertion: f.EchoAssertion, AADSTS: f.AADSTS, Status: f.Status,
		RetryAfter: f.RetryAfter, ExpiresIn: duration(f.ExpiresIn), RefreshIn: duration(f.RefreshIn),
		OmitExpiresIn: f.OmitExpiresIn, OmitRefreshIn: f.OmitRefreshIn, Times: f.Times,
	})
}

// UnmarshalJSON refuses members that it does not know.
func (f *Fault) UnmarshalJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var j faultJSON
	if err := dec.Decode(&j); err != nil {
		return fmt.Errorf("entratest: reading a fault: %w", err)
	}
	next := Fault{
		Hang: j.Hang, Reset: j.Reset, Garbage: j.Garbage, Truncate: j.Truncate, Huge: j.Huge,
		Redirect: j.Redirect, EchoAssertion: j.EchoAssertion, AADSTS: j.AADSTS, Status: j.Status,
		RetryAfter: j.RetryAfter, OmitExpiresIn: j.OmitExpiresIn, OmitRefreshIn: j.OmitRefreshIn, Times: j.Times,
	}
	for _, d := range []struct {
		name, text string
		to         *time.Duration
	}{{"latency", j.Latency, &next.Latency}, {"expires_in", j.ExpiresIn, &next.ExpiresIn}, {"refresh_in", j.RefreshIn, &next.RefreshIn}} {
		if d.text == "" {
			continue
		}
		v, err := time.ParseDuration(d.text)
		if err != nil {
			return fmt.Errorf("entratest: reading a fault: %s %q is not a duration such as \"250ms\"", d.name, d.text)
		}
		*d.to = v
	}
	*f = next
	return nil
}

// check refuses a fault that contradicts itself or is out of range.
func (f *Fault) check() error {
	var kinds int
	for _, set := range []bool{f.Hang, f.Reset, f.Garbage, f.Truncate, f.Huge, f.Redirect != "", f.EchoAssertion, f.AADSTS != 0} {
		if set {
			kinds++
		}
	}
	_, known := refusals[f.AADSTS]
	takesStatus := kinds == 0 || f.EchoAssertion || f.AADSTS != 0
	refuses := kinds > 0 || f.Status != 0
	shapes := f.ExpiresIn != 0 || f.RefreshIn != 0 || f.OmitExpiresIn || f.OmitRefreshIn
	switch {
	case kinds > 1 || f.Status != 0 && !takesStatus:
		return errors.New("entratest: a fault has at most one kind of reply")
	case f.AADSTS != 0 && !known:
		return fmt.Errorf("entratest: a fault's AADSTS code %d is not one the emulator knows", f.AADSTS)
	case f.Status != 0 && (f.Status < 400 || f.Status > 599):
		return fmt.Errorf("entratest: a fault's status %d is not within 400 and 599", f.Status)
	case refuses && shapes:
		return errors.New("entratest: a fault that refuses cannot also shape a granted reply")
	}
	return f.checkRanges()
}

func (f *Fault) checkRanges() error {
	switch {
	case f.Latency < 0 || f.Latency > maxLatency:
		return fmt.Errorf("entratest: a fault's latency %v is not within 0 and %v", f.Latency, maxLatency)
	case f.Times < 0:
		return fmt.Errorf("entratest: a fault's times %d is negative", f.Times)
	case f.ExpiresIn%time.Second != 0 || f.RefreshIn%time.Second != 0:
		return errors.New("entratest: a fault's expires_in and refresh_in are whole seconds")
	case strings.ContainsAny(f.RetryAfter+f.Redirect, "\r\n"):
		return errors.New("entratest: a fault's retry_after and redirect are single lines")
	}
	return nil
}

// faults are the faults in force, by scope.
type faults struct {
	mu  sync.Mutex
	all map[string]Fault
}

// SetFault makes token requests for a scope ("https://vault.azure.net/.default")
// meet f, in place of the fault they met before. The scope "" or "*" means
// every scope that has no fault of its own; DiscoveryScope means the OpenID
// configuration. It returns an error if f contradicts itself.
func (s *Server) SetFault(scope string, f Fault) error {
	if err := f.check(); err != nil {
		return err
	}
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	if len(s.faults.all) >= maxFaults {
		return fmt.Errorf("entratest: there are %d faults already", maxFaults)
	}
	if s.faults.all == nil {
		s.faults.all = map[string]Fault{}
	}
	s.faults.all[defaultTo(scope, anyScope)] = f
	return nil
}

// ClearFaults ends all faults. Requests that hang already keep hanging.
func (s *Server) ClearFaults() {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.all = nil
}

// Faults returns the faults in force by scope; Times is what remains of it.
func (s *Server) Faults() map[string]Fault {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	return maps.Clone(s.faults.all)
}

// take returns the fault that a request meets, and counts it.
func (fs *faults) take(scope string) (Fault, bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f, ok := fs.all[scope]
	if !ok && scope != DiscoveryScope {
		scope = anyScope
		f, ok = fs.all[scope]
	}
	switch {
	case !ok || f.Times == 0:
	case f.Times == 1:
		delete(fs.all, scope)
	default:
		rest := f
		rest.Times--
		fs.all[scope] = rest
	}
	return f, ok
}

// sabotage applies f and reports whether that was the whole reply.
func (s *Server) sabotage(w http.ResponseWriter, r *http.Request, f Fault, assertion string) bool {
	if f.Hang || f.Latency > 0 { // else the server's read timeout would end the wait
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	}
	delay(r.Context(), f.Latency)
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	switch {
	case f.Hang:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case f.Reset:
		reset(w)
	case f.Garbage:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte("<!DOCTYPE html><html><head><title>Sign in</title></head><body>Proxy</body></html>"))
	case f.Truncate:
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Content-Length", "4096")
		_, _ = w.Write([]byte(`{"token_type":"Bearer","expires_in":3599,"access_token":"eyJ`))
	case f.Huge:
		endless(r.Context(), w)
	case f.Redirect != "":
		w.Header().Set("Location", f.Redirect)
		w.WriteHeader(http.StatusTemporaryRedirect)
	default:
		return s.sabotageRefusal(w, r, f, assertion)
	}
	return true
}

func (s *Server) sabotageRefusal(w http.ResponseWriter, r *http.Request, f Fault, assertion string) bool {
	code := f.AADSTS
	if code == 0 {
		code = map[int]int{429: 90055, 503: 90033, 504: 90024}[f.Status]
	}
	switch {
	case f.EchoAssertion:
		s.refuse(w, r, malformed("Received: %s", assertion), f.Status)
	case code != 0:
		s.refuse(w, r, refuse(code), f.Status)
	case f.Status != 0:
		w.Header().Set("Content-Type", "text/html; charset=us-ascii")
		w.WriteHeader(f.Status)
		_, _ = fmt.Fprintf(w, "<HTML><HEAD><TITLE>%s</TITLE></HEAD><BODY><h2>HTTP Error %d.</h2></BODY></HTML>\r\n", http.StatusText(f.Status), f.Status)
	default:
		return false
	}
	return true
}

// delay waits, or aborts the request if it ends first.
func delay(ctx context.Context, d time.Duration) {
	if d == 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		panic(http.ErrAbortHandler)
	}
}

// endless writes until the client or the server gives up.
func endless(ctx context.Context, w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	chunk := bytes.Repeat([]byte("A"), 64<<10)
	_, err := w.Write([]byte(`{"token_type":"Bearer","expires_in":3599,"access_token":"`))
	for err == nil && ctx.Err() == nil {
		_, err = w.Write(chunk)
	}
	panic(http.ErrAbortHandler)
}

// reset ends the connection by a TCP reset: lingering is off, and the TLS
// layer gets no chance to say goodbye. Without a TCP connection, for instance
// in memory, it aborts the request.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if t, ok := conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = conn.Close()
}
