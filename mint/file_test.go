package mint_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/mint"
)

func newFile(t *testing.T, path string) *mint.File {
	t.Helper()
	file, err := mint.NewFile(mint.FileConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// current is a token that is valid now and for an hour.
func current(t *testing.T) string {
	t.Helper()
	return forge(t, goodHeader, payload(time.Now(), time.Now().Add(time.Hour)))
}

func TestNewFileRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  mint.FileConfig
	}{
		{"no path", mint.FileConfig{}},
		{"negative grace", mint.FileConfig{Path: "x", StartupGrace: -1}},
		{"grace over an hour", mint.FileConfig{Path: "x", StartupGrace: time.Hour + 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := mint.NewFile(tt.cfg); err == nil || !strings.HasPrefix(err.Error(), "mint: FileConfig.") {
				t.Errorf("NewFile(%+v): %v, want a refusal that names the field", tt.cfg, err)
			}
		})
	}
}

func TestFileRefuses(t *testing.T) {
	type row struct {
		name      string
		content   func(t *testing.T) string
		cause     error
		temporary bool
		says      []string
	}
	timed := func(issued, expires time.Duration) func(*testing.T) string {
		return func(t *testing.T) string {
			return forge(t, goodHeader, payload(time.Now().Add(issued), time.Now().Add(expires)))
		}
	}
	text := func(s string) func(*testing.T) string { return func(*testing.T) string { return s } }
	for _, tt := range []row{
		{"text", text("not a token"), mint.ErrMalformed, false, []string{"check that the path"}},
		{"two tokens", func(t *testing.T) string { return current(t) + "\n" + current(t) }, mint.ErrMalformed, false, nil},
		{"half a token", func(t *testing.T) string { return current(t)[:100] }, mint.ErrMalformed, false, nil},
		{"over 16 KiB", text(strings.Repeat("a", 16<<10+1)), mint.ErrMalformed, false, []string{"longer than 16 KiB"}},
		{"over 64 KiB", text(strings.Repeat(" ", 64<<10+1)), mint.ErrMalformed, false, []string{"larger than 64 KiB"}},
		{
			"no exp", func(t *testing.T) string {
				return forge(t, goodHeader, `{"iss":"kubernetes/serviceaccount","sub":"s"}`)
			},
			mint.ErrMalformed, false, []string{"no exp", `iss "kubernetes/serviceaccount"`, "projected serviceAccountToken"},
		},
		{
			"expired 5 min ago", timed(-time.Hour, -5*time.Minute), mint.ErrExpired, true,
			[]string{"expired 5m0s ago", issuer, subject, audience, "exp 1999-12-31T23:55:00Z", "projected serviceAccountToken", "subPath"},
		},
		{"expired this instant", timed(-time.Hour, 0), mint.ErrExpired, true, []string{"expired 0s ago"}},
		{
			"not yet valid", timed(61*time.Second, time.Hour), mint.ErrNotYetValid, true,
			[]string{"not valid before 2000-01-01T00:01:01Z, in 1m1s", issuer, subject, audience, "exp 2000-01-01T01:00:00Z", "clocks"},
		},
		{
			"claims that would break the line",
			func(t *testing.T) string {
				return forge(t, goodHeader, `{"iss":"a\nlevel=INFO msg=forged\u001b[2J","exp":1}`)
			},
			mint.ErrExpired, true, []string{`a\nlevel=INFO`},
		},
		{
			"claims without end",
			func(t *testing.T) string {
				return forge(t, goodHeader, `{"iss":"`+strings.Repeat("i", 8<<10)+`","aud":["`+strings.Repeat(`a","`, 500)+`"],"exp":1}`)
			},
			mint.ErrExpired, true, []string{"(8192 bytes)", "and 498 more"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "token")
				raw := tt.content(t)
				write(t, path, raw)
				got, err := newFile(t, path).Assertion(t.Context())
				if !got.Value.IsZero() {
					t.Error("an assertion beside an error")
				}
				checkError(t, err, path, tt.cause, tt.temporary, tt.says...)
				if strings.TrimSpace(raw) != "" {
					checkNoLeak(t, err, raw)
				}
			})
		})
	}
}

// checkError checks all that a caller may use of an error of File.
func checkError(t *testing.T, err error, path string, cause error, temporary bool, says ...string) {
	t.Helper()
	detail, ok := errors.AsType[*mint.Error](err)
	if !ok {
		t.Fatalf("error %v is a %T, want *mint.Error", err, err)
	}
	if !errors.Is(err, cause) || detail.Temporary() != temporary || detail.Path != path {
		t.Errorf("error %v: is %v %v, temporary %v, path %q; want cause %v, temporary %v, path %q",
			err, errors.Is(err, cause), cause, detail.Temporary(), detail.Path, cause, temporary, path)
	}
	for _, want := range append(says, path) {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	checkOneLine(t, err)
}

func TestFileAbsent(t *testing.T) {
	for _, tt := range []struct {
		name  string
		make  func(t *testing.T, path string)
		cause error
		says  string
	}{
		{"missing", func(*testing.T, string) {}, fs.ErrNotExist, "missing"},
		{"empty", func(t *testing.T, path string) { write(t, path, "") }, mint.ErrMalformed, "empty"},
		{"blank", func(t *testing.T, path string) { write(t, path, " \n\t\r\n") }, mint.ErrMalformed, "empty"},
		{"dangling link", func(t *testing.T, path string) { link(t, "nowhere", path) }, fs.ErrNotExist, "missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "token")
				tt.make(t, path)
				file := newFile(t, path)
				for _, step := range []struct {
					sleep     time.Duration
					temporary bool
				}{{0, true}, {59 * time.Second, true}, {time.Second, false}, {time.Hour, false}} {
					time.Sleep(step.sleep)
					_, err := file.Assertion(t.Context())
					checkError(t, err, path, tt.cause, step.temporary, tt.says, "projected serviceAccountToken")
				}
				os.Remove(path)
				write(t, path, current(t))
				if _, err := file.Assertion(t.Context()); err != nil {
					t.Errorf("after the file appeared: %v", err)
				}
			})
		})
	}
}

func TestFileStartupGraceIsConfigurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "token")
		file, err := mint.NewFile(mint.FileConfig{Path: path, StartupGrace: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		_, err = file.Assertion(t.Context())
		checkError(t, err, path, fs.ErrNotExist, true, "within 5s of the start")
		time.Sleep(5 * time.Second)
		_, err = file.Assertion(t.Context())
		checkError(t, err, path, fs.ErrNotExist, false)
	})
}

func TestFileIsADirectory(t *testing.T) {
	path := t.TempDir()
	_, err := newFile(t, path).Assertion(t.Context())
	detail, ok := errors.AsType[*mint.Error](err)
	if !ok || detail.Temporary() || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v, want a permanent refusal", err)
	}
}

func TestFileContextDone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	write(t, path, current(t))
	cause := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if got, err := newFile(t, path).Assertion(ctx); !errors.Is(err, cause) || !got.Value.IsZero() {
		t.Errorf("Assertion with a done context: %v, want %v", err, cause)
	}
}

func TestFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct{ name, before, after string }{
			{"bare", "", ""},
			{"newline", "", "\n"},
			{"much white space", " \r\n\t", strings.Repeat("\n", 32<<10)},
		} {
			path := filepath.Join(t.TempDir(), "token")
			now := time.Now().UTC()
			// Our clock may be up to 60 s behind the issuer's.
			raw := forge(t, goodHeader, payload(now.Add(time.Minute), now.Add(time.Hour)))
			write(t, path, tt.before+raw+tt.after)
			got, err := newFile(t, path).Assertion(t.Context())
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			want := mint.Claims{
				Issuer: issuer, Subject: subject, Audience: []string{audience},
				IssuedAt: now.Add(time.Minute), NotBefore: now.Add(time.Minute), Expiry: now.Add(time.Hour),
				KeyID: "k1", Algorithm: "RS256", Type: "JWT",
			}
			if diff := cmp.Diff(want, got.Claims); diff != "" || !got.Value.Equal(raw) {
				t.Errorf("%s: value is the token: %v; claims -want +got:\n%s", tt.name, got.Value.Equal(raw), diff)
			}
		}
	})
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
}

// kubelet is the volume as kubelet's AtomicWriter keeps it: token is a link to
// ..data/token, and ..data a link that a rename swaps, whereupon the directory
// it led to is removed.
type kubelet struct {
	dir  string
	last string
}

func (k *kubelet) rotate(t *testing.T, token string) {
	t.Helper()
	next, err := os.MkdirTemp(k.dir, "..2026_")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(next, "token"), token)
	link(t, filepath.Base(next), filepath.Join(k.dir, "..data_tmp"))
	if err := os.Rename(filepath.Join(k.dir, "..data_tmp"), filepath.Join(k.dir, "..data")); err != nil {
		t.Fatal(err)
	}
	if k.last == "" {
		link(t, filepath.Join("..data", "token"), filepath.Join(k.dir, "token"))
	} else if err := os.RemoveAll(k.last); err != nil {
		t.Fatal(err)
	}
	k.last = next
}

func TestFileFollowsKubelet(t *testing.T) {
	volume := &kubelet{dir: t.TempDir()}
	var tokens []string
	for i := range 4 {
		tokens = append(tokens, forge(t, goodHeader, payload(time.Now(), time.Now().Add(time.Duration(i+1)*time.Hour))))
	}
	volume.rotate(t, tokens[0])
	file := newFile(t, filepath.Join(volume.dir, "token"))
	for i, want := range tokens {
		if i > 0 {
			volume.rotate(t, want)
		}
		got, err := file.Assertion(t.Context())
		if err != nil || !got.Value.Equal(want) {
			t.Errorf("after rotation %d: another token, or error %v", i, err)
		}
	}
}

// One rotation at a time, since kubelet's are minutes apart.
func TestFileWhileKubeletRotates(t *testing.T) {
	volume := &kubelet{dir: t.TempDir()}
	token := current(t)
	volume.rotate(t, token)
	file := newFile(t, filepath.Join(volume.dir, "token"))
	for range 100 {
		var readers sync.WaitGroup
		var rotated atomic.Bool
		for range 4 {
			readers.Go(func() {
				for last := false; !last; {
					last = rotated.Load()
					if got, err := file.Assertion(t.Context()); err != nil || !got.Value.Equal(token) {
						t.Errorf("while rotating: %v", err)
					}
				}
			})
		}
		volume.rotate(t, token)
		rotated.Store(true)
		readers.Wait()
	}
}
