package publish_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/mint"
	"github.com/svidecar/svidecar/mint/publish"
)

// site serves documents at the root of a TLS server.
func site(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, issuer string)) (issuer string, client *http.Client) {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, "https://"+r.Host)
	}))
	t.Cleanup(server.Close)
	return server.URL, server.Client()
}

func TestCheckRefuses(t *testing.T) {
	const secretly = "do not show this"
	for _, tt := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request, issuer string)
		want   string
	}{
		{"missing", func(w http.ResponseWriter, r *http.Request, _ string) { http.NotFound(w, r) }, "404 Not Found: upload the documents there"},
		{"sign-in", func(w http.ResponseWriter, r *http.Request, issuer string) {
			http.Redirect(w, r, issuer+"/login", http.StatusFound)
		}, "302 Found"},
		{"no discovery document", func(w http.ResponseWriter, r *http.Request, _ string) { _, _ = w.Write([]byte(secretly)) }, "is no discovery document"},
		{"another issuer", func(w http.ResponseWriter, r *http.Request, _ string) {
			_, _ = w.Write([]byte(`{"issuer":"https://other.example"}`))
		}, `is of issuer "https://other.example", not "https://127.0.0.1:`},
		{"no keys", func(w http.ResponseWriter, r *http.Request, issuer string) {
			_, _ = w.Write([]byte(`{"issuer":"` + issuer + `","keys":[]}`))
		}, "not a JSON key set, or an empty one: upload it again"},
		{"a key by another's name", func(w http.ResponseWriter, r *http.Request, issuer string) {
			key, err := signingKey()
			if err != nil {
				t.Error(err)
			}
			_, keySet, err := mint.Documents(issuer, key.Public())
			if err != nil {
				t.Error(err)
			}
			_, _ = w.Write([]byte(strings.Replace(string(keySet), `{"keys":[{`, `{"issuer":"`+issuer+`","keys":[{"kid":"x",`, 1)))
		}, "upload it again"},
		{"endless", func(w http.ResponseWriter, r *http.Request, _ string) {
			_, _ = w.Write([]byte(strings.Repeat(secretly, 1<<17)))
		}, "longer than 1 MiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			issuer, client := site(t, tt.answer)
			kids, err := publish.Check(t.Context(), client, issuer)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), secretly) {
				t.Errorf("Check = %q, %v; want %q", kids, err, tt.want)
			}
		})
	}
	issuer, _ := site(t, func(http.ResponseWriter, *http.Request, string) {})
	if _, err := publish.Check(t.Context(), http.DefaultClient, issuer); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("Check of a server that nobody trusts = %v", err)
	}
}

func TestCheck(t *testing.T) {
	key, err := signingKey()
	if err != nil {
		t.Fatal(err)
	}
	kid, err := mint.KeyID(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	issuer, client := site(t, func(w http.ResponseWriter, r *http.Request, issuer string) {
		discovery, keySet, err := mint.Documents(issuer, key.Public())
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(map[string][]byte{"/.well-known/openid-configuration": discovery, "/openid/v1/jwks": keySet}[r.URL.Path])
	})
	if kids, err := publish.Check(t.Context(), client, issuer); err != nil || !slices.Equal(kids, []string{kid}) {
		t.Errorf("Check = %q, %v; want %s", kids, err, kid)
	}
}
