package mint_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/svidecar/svidecar/mint"
)

func TestNewGitHubRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, url, token string
		cfg              mint.GitHubConfig
		says             string
	}{
		{"no variables", "", "", mint.GitHubConfig{Audience: audience}, `add "permissions: id-token: write" to the workflow's job`},
		{"no URL", "", jobToken, mint.GitHubConfig{Audience: audience}, `add "permissions: id-token: write"`},
		{"no token", "https://127.0.0.1/", "", mint.GitHubConfig{Audience: audience}, `add "permissions: id-token: write"`},
		{"http", "http://127.0.0.1/", jobToken, mint.GitHubConfig{Audience: audience}, "not https"},
		{"no host", "https:///x", jobToken, mint.GitHubConfig{Audience: audience}, "no URL of a token service"},
		{"no URL at all", "https://a b/" + jobToken, jobToken, mint.GitHubConfig{Audience: audience}, "no URL of a token service"},
		{"user", "https://" + jobToken + "@127.0.0.1/", jobToken, mint.GitHubConfig{Audience: audience}, "no URL of a token service"},
		{"fragment", "https://127.0.0.1/#" + jobToken, jobToken, mint.GitHubConfig{Audience: audience}, "no URL of a token service"},
		{"token with a line break", "https://127.0.0.1/", jobToken + "\r\nX: y", mint.GitHubConfig{Audience: audience}, "a character that no token has"},
		{"no audience", "https://127.0.0.1/", jobToken, mint.GitHubConfig{}, "GitHubConfig.Audience: required"},
		{"short time", "https://127.0.0.1/", jobToken, mint.GitHubConfig{Audience: audience, Timeout: time.Second - 1}, "GitHubConfig.Timeout"},
		{"long time", "https://127.0.0.1/", jobToken, mint.GitHubConfig{Audience: audience, Timeout: time.Minute + 1}, "GitHubConfig.Timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("ACTIONS_ID_TOKEN_REQUEST_URL", tt.url)
			t.Setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", tt.token)
			_, err := mint.NewGitHub(tt.cfg)
			if err == nil || !strings.HasPrefix(err.Error(), "mint: ") || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("NewGitHub: %v, want a refusal that says %q", err, tt.says)
			}
			checkOneLine(t, err)
			checkNoLeak(t, err, jobToken)
		})
	}
}

// TestGitHubKeepsItsVariables: they are read once, before the job could change them.
func TestGitHubKeepsItsVariables(t *testing.T) {
	f, _ := startGitHub(t, 0)
	t.Setenv("ACTIONS_ID_TOKEN_REQUEST_URL", "https://127.0.0.1:1/")
	t.Setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "")
	mustFetch(t, f)
}

func TestGitHubURLWithoutQuery(t *testing.T) {
	s := startService(t, true)
	s.expect = func(r *http.Request) bool { return r.RequestURI == "/t?audience=api%3A%2F%2FAzureADTokenExchange" }
	t.Setenv("ACTIONS_ID_TOKEN_REQUEST_URL", s.URL+"/t")
	t.Setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", jobToken)
	f, err := mint.NewGitHub(mint.GitHubConfig{Audience: audience, Roots: s.roots()})
	mustFetch(t, closing(t, f, err))
}

func TestGitHubReplies(t *testing.T) {
	f, s := startGitHub(t, 0)
	raw := s.token
	for _, body := range []string{"", raw, `"` + raw + `"`, `{"count":1}`, `{"value":""}`, `{"value":1}`, `{"value":["` + raw + `"]}`, `{"value":"` + raw} {
		s.play("", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
		_, err := f.Assertion(t.Context())
		checkTrouble(t, err, false, []string{raw}, "its reply has no member value")
	}
	s.play("", replyWith(403, `{"message":"`+raw+`"}`))
	_, err := f.Assertion(t.Context())
	checkTrouble(t, err, false, []string{raw}, "GitHub's token service", "HTTP 403", `add "permissions: id-token: write"`)
}
