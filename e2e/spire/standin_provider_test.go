//go:build linux

package spire_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// oidcProvider stands in for oidc-discovery-provider: it polls the server, serves
// what it heard last, and its discovery document has SPIRE's flaw.
type oidcProvider struct {
	conf map[string]string

	mu    sync.Mutex
	known *state
}

func standInProvider(args []string) error {
	words, set, err := options(args, "config")
	if err != nil || len(words) > 0 {
		return fmt.Errorf("cannot read %q (%v)", args, err)
	}
	conf, err := readConf(set["config"])
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", conf["listen_socket_path"])
	if err != nil {
		return err
	}
	p := &oidcProvider{conf: conf}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("/keys", p.keys)
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(l) }()
	again := time.NewTicker(syncEvery)
	defer again.Stop()
	for stop := terminated(); ; {
		select {
		case <-again.C:
			_ = p.poll()
		case <-stop:
			return server.Close()
		}
	}
}

func (p *oidcProvider) poll() error {
	client := overSocket(strings.TrimPrefix(p.conf["address"], "unix://"))
	defer client.CloseIdleConnections()
	client.Timeout = time.Second
	body, err := ask(client, "http://server", "/agent/state", nil)
	var now state
	if err := errors.Join(err, json.Unmarshal(body, &now)); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = &now
	return nil
}

func (p *oidcProvider) discovery(w http.ResponseWriter, r *http.Request) {
	if host, _, _ := strings.Cut(r.Host, ":"); p.conf["domains"] != `["`+host+`"]` {
		http.Error(w, fmt.Sprintf("domain %q is not allowed", host), http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(object{
		"issuer": p.conf["jwt_issuer"], "jwks_uri": p.conf["jwks_uri"], "authorization_endpoint": "",
		"response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256", "ES256", "ES384"},
	})
}

func (p *oidcProvider) keys(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil {
		http.Error(w, "document not available", http.StatusInternalServerError)
		return
	}
	use := ""
	if p.conf["set_key_use"] == "true" {
		use = "sig"
	}
	_ = json.NewEncoder(w).Encode(withUse(p.known.Keys, use))
}
