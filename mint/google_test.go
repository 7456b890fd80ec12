package mint_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/svidecar/svidecar/mint"
)

func TestNewGoogleRefuses(t *testing.T) {
	t.Setenv("GCE_METADATA_HOST", "")
	for _, tt := range []struct{ name, host, variable, says string }{
		{"URL", "http://metadata.google.internal", "", "GoogleConfig.Host"},
		{"path", "metadata.google.internal/x", "", "GoogleConfig.Host"},
		{"query", "metadata.google.internal?x", "", "GoogleConfig.Host"},
		{"user", "u@metadata.google.internal", "", "GoogleConfig.Host"},
		{"space", "a b", "", "GoogleConfig.Host"},
		{"line break", "a\r\nb", "", "GoogleConfig.Host"},
		{"percent", "a%41", "", "GoogleConfig.Host"},
		{"no host", ":80", "", "GoogleConfig.Host"},
		{"no port", "a:", "", "GoogleConfig.Host"},
		{"named port", "a:http", "", "GoogleConfig.Host"},
		{"IPv6 without brackets", "::1", "", "GoogleConfig.Host"},
		{"URL in the variable", "", "http://a/", "GCE_METADATA_HOST"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("GCE_METADATA_HOST", tt.variable)
			_, err := mint.NewGoogle(mint.GoogleConfig{Audience: audience, Host: tt.host})
			if err == nil || !strings.HasPrefix(err.Error(), "mint: "+tt.says) {
				t.Fatalf("NewGoogle: %v, want a refusal of %s", err, tt.says)
			}
			checkOneLine(t, err)
		})
	}
	for _, cfg := range []mint.GoogleConfig{{}, {Audience: audience, Timeout: -1}} {
		if _, err := mint.NewGoogle(cfg); err == nil || !strings.HasPrefix(err.Error(), "mint: GoogleConfig.") {
			t.Errorf("NewGoogle(%+v): %v, want a refusal", cfg, err)
		}
	}
}

func TestGoogleFindsItsServer(t *testing.T) {
	s := startService(t, false)
	s.expect = func(*http.Request) bool { return true }
	address := s.Listener.Addr().String()
	t.Setenv("GCE_METADATA_HOST", address)
	f, err := mint.NewGoogle(mint.GoogleConfig{Audience: audience})
	mustFetch(t, closing(t, f, err))
	t.Setenv("GCE_METADATA_HOST", "127.0.0.1:1")
	f, err = mint.NewGoogle(mint.GoogleConfig{Audience: audience, Host: address})
	mustFetch(t, closing(t, f, err))

	for _, host := range []string{"", "metadata.google.internal", "[::1]", "[::1]:80", "10.0.0.1"} { // nothing is sent
		t.Setenv("GCE_METADATA_HOST", "")
		f, err := mint.NewGoogle(mint.GoogleConfig{Audience: audience, Host: host})
		closing(t, f, err)
	}
}

// ours is a refusal as svidecar writes it (docs/protocol.md, "Errors").
func ours(code int) string {
	return fmt.Sprintf(`{"error":"invalid_request","error_description":"d","statusCode":%d,"message":"d","correlationId":"43b31df4-1598-45db-a0fb-d15ace5dd669"}`, code)
}

func TestGoogleTellsOthersFromGoogle(t *testing.T) {
	f, s := startGoogle(t, 0)
	raw := s.token
	for _, tt := range []struct {
		name      string
		flavor    string
		status    int
		body      string
		temporary bool
		says      string
	}{
		{"svidecar itself", "", 400, ours(400), false, "svidecar itself answered"},
		{"svidecar itself, elsewhere", "", 404, ours(404), false, "svidecar itself answered"},
		{"svidecar itself, busy", "", 429, ours(429), false, "svidecar itself answered"},
		{"Azure's IMDS", "", 400, `{"error":"invalid_request","error_description":"Required metadata header not specified"}`, false, "lacks the header Metadata-Flavor"},
		{"another server", "", 200, raw, false, "lacks the header Metadata-Flavor"},
		{"another flavor", "Other", 200, raw, false, "lacks the header Metadata-Flavor"},
		{"a broken way there", "", 502, "", true, "HTTP 502"},
		{"no service account", "Google", 404, raw, false, "has a service account"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.play("", func(w http.ResponseWriter, _ *http.Request) {
				if tt.flavor != "" {
					w.Header().Set("Metadata-Flavor", tt.flavor)
				}
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			})
			_, err := f.Assertion(t.Context())
			checkTrouble(t, err, tt.temporary, []string{raw}, "Google's metadata server", tt.says)
		})
	}
}

func TestGoogleTakesWhiteSpaceAround(t *testing.T) {
	f, s := startGoogle(t, 0)
	raw := platformToken(t, time.Now(), time.Hour)
	s.play(raw+"\n", nil)
	if got := mustFetch(t, f); !got.Value.Equal(raw) {
		t.Error("the token has its white space")
	}
}
