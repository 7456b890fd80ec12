package proxy_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/svidecar/svidecar/imds"
	"github.com/svidecar/svidecar/proxy"
)

// key asks for a key of Arc's protocol and reads it.
func key(t *testing.T, r *running, target string) (path, content string) {
	t.Helper()
	got := raw(t, r.arc, "GET "+target+" HTTP/1.1\r\nHost: localhost:40342\r\n"+metadata+"\r\n")
	path, ok := strings.CutPrefix(got.Header.Get("WWW-Authenticate"), "Basic realm=")
	if got.StatusCode != 401 || !ok || strings.ContainsAny(path, `"=`) || filepath.Ext(path) != ".key" {
		t.Fatalf("got %d, WWW-Authenticate %q, want 401 with a path", got.StatusCode, got.Header.Get("WWW-Authenticate"))
	}
	data, err := os.ReadFile(path)
	if err != nil || len(data) < 32 || len(data) > 4096 {
		t.Fatalf("the key has %d bytes, %v", len(data), err)
	}
	return path, string(data)
}

func withKey(t *testing.T, r *running, target, authorization string) reply {
	t.Helper()
	return raw(t, r.arc, "GET "+target+" HTTP/1.1\r\nHost: localhost:40342\r\n"+metadata+authorization+"\r\n")
}

func TestArcRefuses(t *testing.T) {
	r := startAll(t, nil)
	_, content := key(t, r, imdsTarget)
	const line, host = "GET " + imdsTarget, " HTTP/1.1\r\nHost: localhost:40342\r\n"
	basic := "Authorization: Basic " + content + "\r\n"
	for _, tt := range []struct {
		name, request string
		status        int
	}{
		{"no Metadata", line + host, 400},
		{"no Metadata, with a key", line + host + basic, 400},
		{"forwarded", line + host + metadata + basic + "Via: x\r\n", 400},
		{"a body, no key", line + host + metadata + "Content-Length: 1\r\n\r\nx", 400},
		{"a wrong key", line + host + metadata + "Authorization: Basic " + content + "x\r\n", 401},
		{"an empty key", line + host + metadata + "Authorization: Basic \r\n", 401},
		{"another scheme", line + host + metadata + "Authorization: Bearer " + content + "\r\n", 401},
		{"no scheme", line + host + metadata + "Authorization: " + content + "\r\n", 401},
		{"the key twice", line + host + metadata + basic + basic, 401},
		{"a long key", line + host + metadata + "Authorization: Basic " + strings.Repeat("x", 5000) + "\r\n", 401},
		{"the secret of App Service", line + host + identity, 400},
		{"App Service's path", "GET " + msiTarget + host + identity, 404},
		{"POST", "POST " + imdsTarget + host + metadata + basic + "Content-Length: 0\r\n", 405},
		{"a redirecting path", "GET /metadata/../x" + host + metadata + basic, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := raw(t, r.arc, tt.request+"\r\n")
			if got.StatusCode != tt.status || got.Header.Get("WWW-Authenticate") != "" {
				t.Errorf("got %d %s, WWW-Authenticate %q; want %d without", got.StatusCode, got.body, got.Header.Get("WWW-Authenticate"), tt.status)
			}
		})
	}
	if keys := r.tokens.asked(); len(keys) > 0 {
		t.Errorf("refused requests reached the exchange: %v", keys)
	}
	// What refused others has not used the key up.
	if got := withKey(t, r, imdsTarget, basic); got.StatusCode != 200 {
		t.Errorf("the key: %d %s", got.StatusCode, got.body)
	}
	// And the key is of no use elsewhere.
	if got := get(t, r, msiTarget, basic); got.StatusCode != 401 {
		t.Errorf("a key on App Service's path: %d %s", got.StatusCode, got.body)
	}
}

// TestArcKeys: a key is another each time, of use once, and gone afterwards, from
// the directory too.
func TestArcKeys(t *testing.T) {
	var dir string
	r := startAll(t, func(cfg *proxy.Config) { dir = cfg.ArcTokensDir })
	onePath, one := key(t, r, imdsTarget)
	twoPath, two := key(t, r, imdsTarget)
	if one == two || onePath == twoPath || filepath.Dir(onePath) != dir {
		t.Fatalf("keys %q and %q do not differ, or are not in %q", onePath, twoPath, dir)
	}
	info, err := os.Stat(onePath)
	if err != nil || info.Mode().Perm() != 0o640 && runtime.GOOS != "windows" {
		t.Errorf("mode %v, %v; want 0640", info.Mode(), err)
	}
	target := imdsTarget + "&msi_res_id=" + resourceID
	got := withKey(t, r, target, "Authorization: Basic "+one+"\r\n")
	if got.StatusCode != 200 || got.field(t, "msi_res_id") != resourceID {
		t.Errorf("got %d %s, want a token that echoes the selector", got.StatusCode, got.body)
	}
	if _, err := os.Stat(onePath); !os.IsNotExist(err) {
		t.Errorf("a used key is still there: %v", err)
	}
	if got := withKey(t, r, target, "Authorization: Basic "+one+"\r\n"); got.StatusCode != 401 {
		t.Errorf("a key was of use twice: %d", got.StatusCode)
	}
	r.stop()
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
	r.ended <- nil
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("keys are left at the end: %v, %v", left, err)
	}
	if strings.Contains(r.log.String(), one) || strings.Contains(r.log.String(), two) {
		t.Error("a key is logged")
	}
	for _, line := range r.log.lines(t) {
		if line["outcome"] == "challenged" && line["level"] != "DEBUG" {
			t.Errorf("every token of Arc's makes a line: %v", line)
		}
	}
}

// TestArcKeysAreBounded: whoever asks for keys and never uses them neither fills
// the disk nor keeps others out.
func TestArcKeysAreBounded(t *testing.T) {
	var dir string
	r := startAll(t, func(cfg *proxy.Config) { dir = cfg.ArcTokensDir })
	for range 200 {
		key(t, r, imdsTarget)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 128 {
		t.Errorf("200 challenges left %d files, %v; want 128", len(left), err)
	}
	onePath, one := key(t, r, imdsTarget)
	twoPath, two := key(t, r, imdsTarget)
	if onePath == twoPath {
		t.Error("two clients got one key, of 128")
	}
	for _, content := range []string{one, two} {
		if got := withKey(t, r, imdsTarget, "Authorization: Basic "+content+"\r\n"); got.StatusCode != 200 {
			t.Errorf("a key that was given again: %d %s", got.StatusCode, got.body)
		}
	}
}

// TestArcReadsBeforeItChallenges: what no key could help costs none.
func TestArcReadsBeforeItChallenges(t *testing.T) {
	var dir string
	r := startAll(t, func(cfg *proxy.Config) { dir = cfg.ArcTokensDir })
	for _, target := range []string{"/metadata/identity/oauth2/token", "/metadata/identity/oauth2/token?resource=", imdsTarget + "&resource=x"} {
		if got := withKey(t, r, target, ""); got.StatusCode != 400 || got.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s: %d %s", target, got.StatusCode, got.body)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("keys were written: %v, %v", left, err)
	}
}

// TestArcSweeps: what a killed process left goes at the next start; what is not
// svidecar's, or may be in use, stays.
func TestArcSweeps(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for name, at := range map[string]time.Time{"svidecar-old.key": old, "svidecar-new.key": time.Now(), "other.key": old} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	r := startAll(t, func(cfg *proxy.Config) { cfg.ArcTokensDir = dir })
	get(t, r, imdsTarget, metadata) // it runs
	for name, stays := range map[string]bool{"svidecar-old.key": false, "svidecar-new.key": true, "other.key": true} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != stays {
			t.Errorf("%s: %v, want it to stay: %v", name, err, stays)
		}
	}
}

// TestArcDirectory: one that others can write to is refused, before anything is
// served.
func TestArcDirectory(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes say nothing there")
	}
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{open, file, filepath.Join(file, "below")} {
		s, err := proxy.New(proxy.Config{Tokens: &fakeTokens{}, Policy: policy(t, twoIdentities()), Logger: quiet(), Protocols: []imds.Protocol{imds.Arc}, ArcTokensDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		arc := listen(t)
		if err := s.Run(t.Context(), listen(t), listen(t), proxy.Endpoint{Protocol: imds.Arc, Listener: arc}); err == nil {
			t.Errorf("Run takes %s", dir)
		}
		if _, err := arc.Accept(); err == nil {
			t.Error("Run left a listener open")
		}
	}
}
