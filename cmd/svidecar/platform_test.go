package main

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/svidecar/svidecar/internal/emulation"
)

// platform is a token service that gives what the emulation's own source signs,
// to requests of one form only.
type platform struct {
	cloud  *emulation.Emulation
	wanted func(*http.Request) bool
	answer func(http.ResponseWriter, string)
}

func (p *platform) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	assertion, err := p.cloud.Source.Assertion(r.Context())
	if err != nil || r.Method != http.MethodGet || r.ContentLength != 0 || !p.wanted(r) {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	p.answer(w, assertion.Value.Reveal())
}

const audienceAsked = "audience=api%3A%2F%2FAzureADTokenExchange"

// platforms are the forms.
var platforms = map[string]platform{
	"github": {
		wanted: func(r *http.Request) bool {
			return r.RequestURI == "/token?api-version=2.0&"+audienceAsked && r.Header.Get("Authorization") == "bearer of-the-job"
		},
		answer: func(w http.ResponseWriter, token string) {
			_ = json.NewEncoder(w).Encode(map[string]any{"count": len(token), "value": token})
		},
	},
	"google": {
		wanted: func(r *http.Request) bool {
			return r.RequestURI == "/computeMetadata/v1/instance/service-accounts/default/identity?"+audienceAsked+"&format=full" &&
				r.Header.Get("Metadata-Flavor") == "Google"
		},
		answer: func(w http.ResponseWriter, token string) {
			w.Header().Set("Metadata-Flavor", "Google")
			_, _ = io.WriteString(w, token)
		},
	},
	"url": {
		wanted: func(r *http.Request) bool {
			return r.RequestURI == "/token?"+audienceAsked && r.Header.Get("Authorization") == "Bearer of-the-machine"
		},
		answer: func(w http.ResponseWriter, token string) {
			_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]string{"token": token}})
		},
	},
}

// platform github|google|url
//
// starts a token service until the end of the script; entra comes first, and
// signs. It is found by the variables that the platform sets, or by $TOKEN_URL
// with $BEARER, a file.
func cmdPlatform(ts *testscript.TestScript, neg bool, args []string) {
	cloud := ts.Value("emulation").(*emulationOf).cloud
	if neg || cloud == nil || len(args) != 1 || platforms[args[0]].wanted == nil {
		ts.Fatalf("usage: entra, then platform github|google|url")
	}
	p := platforms[args[0]]
	p.cloud = cloud
	server := httptest.NewUnstartedServer(&p)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	ts.Defer(server.Close)
	if args[0] == "google" {
		server.Start()
		ts.Setenv("GCE_METADATA_HOST", server.Listener.Addr().String())
		return
	}
	cert, err := cloud.CA.Certificate("127.0.0.1")
	ts.Check(err)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	ts.Setenv("ACTIONS_ID_TOKEN_REQUEST_URL", server.URL+"/token?api-version=2.0")
	ts.Setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of-the-job")
	ts.Setenv("TOKEN_URL", server.URL+"/token")
	ts.Setenv("BEARER", ts.MkAbs("bearer"))
	ts.Check(os.WriteFile(ts.MkAbs("bearer"), []byte("of-the-machine\n"), 0o600))
}

// host VARIABLE HOST
//
// replaces the host of an address.
func cmdHost(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: host VARIABLE HOST")
	}
	_, port, err := net.SplitHostPort(ts.Getenv(args[0]))
	ts.Check(err)
	ts.Setenv(args[0], net.JoinHostPort(args[1], port))
}
