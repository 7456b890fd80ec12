//go:build linux

package spire_test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"time"
)

const (
	trustDomain = "example.org"
	workloadID  = "spiffe://" + trustDomain + "/ns/shop/sa/cart"
	audience    = "api://AzureADTokenExchange"
	// maxSocketPath is what sun_path holds on Linux, without its end.
	maxSocketPath = 107
)

// settings are what scenarios vary.
type settings struct {
	keyType  string        // jwt_key_type; empty: SPIRE's default, which is ES256
	noIssuer bool          // no jwt_issuer, as by default
	life     time.Duration // of JWT-SVIDs, in whole seconds
}

// layout is where a world keeps its files.
type layout struct{ dir string }

func (l layout) at(name string) string { return filepath.Join(l.dir, name) }
func (l layout) serverSocket() string  { return l.at("server.sock") }
func (l layout) agentSocket() string   { return l.at("agent.sock") }
func (l layout) oidcSocket() string    { return l.at("oidc.sock") }
func (l layout) bundle() string        { return l.at("bundle.pem") }

// plainPath matches what needs no thought in HCL, which interpolates.
var plainPath = regexp.MustCompile(`^/[A-Za-z0-9/._-]+$`)

func newLayout(dir string) (layout, error) {
	l := layout{dir}
	for _, socket := range []string{l.serverSocket(), l.agentSocket(), l.oidcSocket()} {
		switch {
		case !plainPath.MatchString(socket):
			return layout{}, fmt.Errorf("%q has characters that SPIRE's configuration may misread: set TMPDIR to a plain path", socket)
		case len(socket) > maxSocketPath:
			return layout{}, fmt.Errorf("%q has %d bytes, and a socket's path at most %d: set TMPDIR to a short path", socket, len(socket), maxSocketPath)
		}
	}
	return l, nil
}

// serverConf is SPIRE's server.conf (doc/spire_server.md).
func (l layout) serverConf(s settings, port int, issuer string) string {
	optional := ""
	if s.keyType != "" {
		optional += fmt.Sprintf("  jwt_key_type = %q\n", s.keyType)
	}
	if !s.noIssuer {
		optional += fmt.Sprintf("  jwt_issuer = %q\n", issuer)
	}
	return fmt.Sprintf(`server {
  bind_address = "127.0.0.1"
  bind_port = "%d"
  socket_path = %q
  trust_domain = %q
  data_dir = %q
  log_level = "DEBUG"
  default_jwt_svid_ttl = "%ds"
%s}
plugins {
  DataStore "sql" {
    plugin_data {
      database_type = "sqlite3"
      connection_string = %q
    }
  }
  KeyManager "memory" {
    plugin_data {}
  }
  NodeAttestor "join_token" {
    plugin_data {}
  }
}
`, port, l.serverSocket(), trustDomain, l.at("server"), int(s.life/time.Second), optional, l.at("server/datastore.sqlite3"))
}

// agentConf is SPIRE's agent.conf (doc/spire_agent.md). The join token counts once:
// later the agent has its own SVID in data_dir, and the key of it on disk.
func (l layout) agentConf(serverPort int, joinToken string) string {
	return fmt.Sprintf(`agent {
  server_address = "127.0.0.1"
  server_port = "%d"
  socket_path = %q
  trust_bundle_path = %q
  trust_domain = %q
  data_dir = %q
  log_level = "DEBUG"
  join_token = %q
}
plugins {
  KeyManager "disk" {
    plugin_data {
      directory = %q
    }
  }
  NodeAttestor "join_token" {
    plugin_data {}
  }
  WorkloadAttestor "unix" {
    plugin_data {}
  }
}
`, serverPort, l.agentSocket(), l.bundle(), trustDomain, l.at("agent"), joinToken, l.at("agent"))
}

// providerConf is the discovery provider's (support/oidc-discovery-provider). It asks
// the server, so that it needs no registration of its own.
func (l layout) providerConf(issuer string) string {
	return fmt.Sprintf(`log_level = "debug"
domains = ["localhost"]
jwt_issuer = %q
jwks_uri = %q
listen_socket_path = %q
set_key_use = true
server_api {
  address = %q
  poll_interval = "1s"
}
`, issuer, issuer+"/keys", l.oidcSocket(), "unix://"+l.serverSocket())
}
