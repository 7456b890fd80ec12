package entratest

import (
	"net/http"
	"net/url"
	"strings"
)

// instance serves the instance discovery document that MSAL asks for. Its
// authorization_endpoint must name this emulator.
func (s *Server) instance(w http.ResponseWriter, r *http.Request) {
	s.calls.add(func(c *Calls) { c.Instance++ })
	q := r.URL.Query()
	endpoint, err := url.Parse(q.Get("authorization_endpoint"))
	version := q.Get("api-version")
	if err != nil || endpoint.Scheme != "https" || !s.answersTo(endpoint.Host) || version != "1.0" && version != "1.1" {
		s.refuse(w, r, refuse(50049), 0)
		return
	}
	tenant, _, _ := strings.Cut(strings.TrimPrefix(endpoint.Path, "/"), "/")
	host := endpoint.Host
	writeJSON(w, http.StatusOK, map[string]any{
		"tenant_discovery_endpoint": "https://" + host + "/" + url.PathEscape(tenant) + "/v2.0/.well-known/openid-configuration",
		"api-version":               "1.1",
		"metadata": []map[string]any{{
			"preferred_network": host,
			"preferred_cache":   host,
			"aliases":           []string{host},
		}},
	})
}

// openID serves the tenant's OpenID configuration, with URLs on the host that
// the client called.
func (s *Server) openID(w http.ResponseWriter, r *http.Request) {
	s.calls.add(func(c *Calls) { c.Discovery++ })
	if fault, ok := s.faults.take(DiscoveryScope); ok && s.sabotage(w, r, fault, "") {
		return
	}
	tenant := strings.ToLower(r.PathValue("tenant"))
	if !s.dir.hasTenant(tenant) {
		s.refuse(w, r, refuse(90002, "{tenant}", tenant), 0)
		return
	}
	host := "https://" + r.Host
	base := host + "/" + tenant
	writeJSON(w, http.StatusOK, map[string]any{
		"token_endpoint":                        base + "/oauth2/v2.0/token",
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt", "client_secret_basic", "self_signed_tls_client_auth"},
		"jwks_uri":                              base + "/discovery/v2.0/keys",
		"response_modes_supported":              []string{"query", "fragment", "form_post"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"response_types_supported":              []string{"code", "id_token", "code id_token", "id_token token"},
		"scopes_supported":                      []string{"openid", "profile", "email", "offline_access"},
		"issuer":                                base + "/v2.0",
		"request_uri_parameter_supported":       false,
		"authorization_endpoint":                base + "/oauth2/v2.0/authorize",
		"device_authorization_endpoint":         base + "/oauth2/v2.0/devicecode",
		"end_session_endpoint":                  base + "/oauth2/v2.0/logout",
		"http_logout_supported":                 true,
		"frontchannel_logout_supported":         true,
		"claims_supported":                      []string{"sub", "iss", "aud", "exp", "iat", "acr", "nonce", "tid", "ver"},
		"tenant_region_scope":                   "EU",
		"cloud_instance_name":                   "microsoftonline.com",
		"cloud_graph_host_name":                 "graph.windows.net",
		"msgraph_host":                          "graph.microsoft.com",
	})
}

// ownKeys serves the keys that access tokens are signed with.
func (s *Server) ownKeys(w http.ResponseWriter, r *http.Request) {
	s.calls.add(func(c *Calls) { c.Keys++ })
	tenant := strings.ToLower(r.PathValue("tenant"))
	if tenant != "common" && !s.dir.hasTenant(tenant) {
		s.refuse(w, r, refuse(90002, "{tenant}", tenant), 0)
		return
	}
	writeJSON(w, http.StatusOK, s.signer.jwks("https://"+r.Host+"/"+tenant+"/v2.0"))
}

// refuse counts and writes a refusal; status 0 means the table's.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, ref *refusal, status int, context ...string) {
	s.calls.add(func(c *Calls) { c.Refusals[ref.code]++ })
	ref.write(w, r, status, context...)
}
