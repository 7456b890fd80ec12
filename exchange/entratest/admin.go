package entratest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
)

// AdminHandler serves the emulator's controls for a person or a script:
//
//	GET /          what there is, as text
//	GET /calls     Calls and Assertions; DELETE resets them
//	GET /faults    the faults in force; PUT {"scope":"…","fault":{…}} sets one,
//	               DELETE clears them
//	GET /apps      the apps and their federated credentials
//
// It answers only to a loopback Host, and a browser's page of another origin
// cannot write. It has no other authentication: serve it on loopback only.
func (s *Server) AdminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.adminIndex)
	mux.HandleFunc("GET /calls", s.adminCalls)
	mux.HandleFunc("DELETE /calls", s.adminResetCalls)
	mux.HandleFunc("GET /faults", s.adminFaults)
	mux.HandleFunc("PUT /faults", s.adminSetFault)
	mux.HandleFunc("DELETE /faults", s.adminClearFaults)
	mux.HandleFunc("GET /apps", s.adminApps)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		adminError(w, http.StatusNotFound, fmt.Errorf("there is no %s %s; GET / lists what there is", r.Method, r.URL.Path))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if err := guard(r); err != nil {
			adminError(w, http.StatusForbidden, err)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// guard refuses DNS rebinding by Host, and writes by a web page.
func guard(r *http.Request) error {
	host := (&url.URL{Host: r.Host}).Hostname()
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return fmt.Errorf("the host %q is not loopback", r.Host)
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	if _, ok := r.Header["Origin"]; ok {
		return errors.New("a request with an Origin cannot write")
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "none" {
		return fmt.Errorf("a request with Sec-Fetch-Site %q cannot write", site)
	}
	return nil
}

func adminError(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, map[string]string{"error": err.Error()})
}

func (s *Server) adminIndex(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprintf(w, `svidecar: emulator of Microsoft Entra's token endpoint
It serves %s . Its tokens are worth nothing anywhere else.

GET    /calls    counts of requests, and what the last assertions said
DELETE /calls    reset them
GET    /faults   faults in force
PUT    /faults   set one: {"scope":"https://vault.azure.net/.default","fault":{"status":429,"retry_after":"60","times":3}}
                 scope "*": every scope; "discovery": the OpenID configuration
                 fault: one of hang, reset, garbage, truncate, huge, echo_assertion (true), redirect (a URL),
                 aadsts (a code), status (400 to 599); with status or aadsts: retry_after; with any: latency
                 ("250ms"), times; of a granted token: expires_in, refresh_in ("20m"), omit_expires_in, omit_refresh_in
                 curl -X PUT -H Content-Type:application/json -d '{"scope":"*","fault":{"status":503,"times":2}}' http://%s/faults
DELETE /faults   clear all
GET    /apps     apps and their federated credentials
`, defaultTo(s.URL(), "nothing yet"), r.Host)
}

func (s *Server) adminCalls(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Calls
		Assertions map[string]Assertion `json:"assertions"`
	}{s.Calls(), s.Assertions()})
}

func (s *Server) adminResetCalls(w http.ResponseWriter, _ *http.Request) {
	s.ResetCalls()
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) adminFaults(w http.ResponseWriter, _ *http.Request) {
	all := s.Faults()
	if all == nil {
		all = map[string]Fault{}
	}
	writeJSON(w, http.StatusOK, map[string]any{"faults": all})
}

func (s *Server) adminSetFault(w http.ResponseWriter, r *http.Request) {
	var put struct {
		Scope string `json:"scope"`
		Fault *Fault `json:"fault"`
	}
	if err := readJSON(w, r, &put); err != nil {
		adminError(w, http.StatusBadRequest, err)
		return
	}
	if put.Fault == nil {
		adminError(w, http.StatusBadRequest, errors.New(`the member "fault" is required`))
		return
	}
	if err := s.SetFault(put.Scope, *put.Fault); err != nil {
		adminError(w, http.StatusBadRequest, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) adminClearFaults(w http.ResponseWriter, _ *http.Request) {
	s.ClearFaults()
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) adminApps(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"apps": s.Apps()})
}

// readJSON reads one JSON object of at most 64 KiB whose members are all known
// and given once.
func readJSON(w http.ResponseWriter, r *http.Request, to any) error {
	if typ, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || typ != "application/json" {
		return errors.New("the Content-Type is not application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return fmt.Errorf("reading the body: %w", err)
	}
	if _, err := object(body); err != nil {
		return fmt.Errorf("reading the body: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(to); err != nil {
		return fmt.Errorf("reading the body: %w", err)
	}
	return nil
}
