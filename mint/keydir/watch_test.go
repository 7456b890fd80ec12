package keydir_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/mint"
	"github.com/svidecar/svidecar/mint/keydir"
)

// watched begins to watch on a fake clock, without notifications, and returns
// what was seen at which time since, newest last.
func watched(t *testing.T, f *fixture) (seen func() []string) {
	t.Helper()
	begin := time.Now()
	var lines []string
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() {
		cancel()
		<-done
	})
	go func() {
		defer close(done)
		err := f.Watch(ctx, func(err error) {
			line := f.states()
			if err != nil {
				line = "error"
				checkOneLine(t, err)
			}
			lines = append(lines, time.Since(begin).String()+" "+line)
		})
		if err != nil {
			t.Errorf("Watch = %v at the end of its context", err)
		}
	}()
	return func() []string {
		synctest.Wait()
		return lines
	}
}

// Without notifications a change is seen within a minute, and one that time
// brings at its time.
func TestWatchWithoutNotifications(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := create(t, time.Hour)
		f.publish()
		other := f.another()
		f.kids = append(f.kids, kidOf(t, keyAt(len(other.kids)).Public())) // B, which that one makes
		seen := watched(t, f)
		seen()
		time.Sleep(30 * time.Second)
		key, err := other.Rotate(t.Context())
		f.must(err)
		time.Sleep(time.Hour)
		f.must(other.MarkPublished(t.Context(), key.ID))
		time.Sleep(3 * time.Hour)
		want := []string{
			"0s A:active",
			"1m0s A:active B:pending",
			"1h1m0s A:active B:published",
			"2h0m30s B:active A:retired",
			"3h5m30s B:active",
		}
		if diff := cmp.Diff(want, seen()); diff != "" {
			t.Errorf("seen (-want +got):\n%s", diff)
		}
	})
}

// What this process changes itself is seen too: its documents have to follow.
func TestWatchSeesOwnChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := create(t, time.Hour)
		seen := watched(t, f)
		seen()
		f.publish()
		time.Sleep(time.Minute)
		want := []string{"0s A:pending", "1m0s A:active"}
		if diff := cmp.Diff(want, seen()); diff != "" {
			t.Errorf("seen (-want +got):\n%s", diff)
		}
	})
}

// A manifest that cannot be read leaves the old contents, whose states go on.
func TestWatchDamagedManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := create(t, 90*time.Second)
		f.publish()
		f.rotate()
		f.publish()
		seen := watched(t, f)
		seen()
		path := filepath.Join(f.Path(), "keys.json")
		good, err := os.ReadFile(path)
		f.must(err)
		f.must(os.WriteFile(path, good[:100], 0o644))
		time.Sleep(119 * time.Second)
		f.must(os.WriteFile(path, good, 0o644))
		time.Sleep(5 * time.Minute)
		want := []string{
			"0s A:active B:published",
			"1m0s error",
			"1m30s error",
			"1m30s B:active A:retired",
			"2m30s B:active A:retired", // it can be read again
		}
		if diff := cmp.Diff(want, seen()); diff != "" {
			t.Errorf("seen (-want +got):\n%s", diff)
		}
	})
}

// notified watches with the file system's own notifications, and returns a wait
// for a state.
func notified(t *testing.T, dir *keydir.Dir) (until func(ok func() bool)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	changes, done := make(chan error, 100), make(chan error, 1)
	go func() { done <- dir.Watch(ctx, func(err error) { changes <- err }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func(ok func() bool) {
		t.Helper()
		late := time.After(30 * time.Second) // half of what looking again would take
		for !ok() {
			select {
			case err := <-changes:
				if err != nil {
					t.Log(err) // one look may fall between two steps of a test
				}
			case <-late:
				t.Fatalf("nothing was seen: %s", stateNames(dir))
			}
		}
	}
}

func TestWatchSeesAnotherProcess(t *testing.T) {
	f := scene(t, "active")
	f.Hook(keydir.TestHooks{})
	until := notified(t, f.Dir)
	until(func() bool { return stateNames(f.Dir) == "active" })
	for _, step := range []struct{ op, want string }{
		{"rotate", "active pending"},
		{"publish", "active published"},
		{"retire active", "active"},
	} {
		if said, _ := start(t, step.op, f.Path(), 40).end(); said != "done" {
			t.Fatalf("%s: the child says %q", step.op, said)
		}
		until(func() bool { return stateNames(f.Dir) == step.want })
	}
	key, err := f.Signer()
	if err != nil || kidOf(t, key.Public()) == f.kid("A") {
		t.Errorf("the key that was retired for theft still signs, or %v", err)
	}
}

// mountSecret lays a directory out as kubelet does a Secret's volume, in a version.
func mountSecret(t *testing.T, volume, version string, f *fixture) {
	t.Helper()
	data := filepath.Join(volume, ".."+version)
	f.must(os.Mkdir(data, 0o755))
	for _, name := range strings.Fields(strings.Trim(listed(t, f.Path()), "[]")) {
		if name == ".lock" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(f.Path(), name))
		f.must(err)
		f.must(os.WriteFile(filepath.Join(data, name), text, 0o400))
		if link := filepath.Join(volume, name); !exists(link) {
			f.must(os.Symlink(filepath.Join("..data", name), link))
		}
	}
	f.must(os.Symlink(".."+version, filepath.Join(volume, "..data_tmp")))
	f.must(os.Rename(filepath.Join(volume, "..data_tmp"), filepath.Join(volume, "..data")))
}

// TestSecret: a Secret that changes is a directory that was swapped.
func TestSecret(t *testing.T) {
	f, volume := scene(t, "active"), t.TempDir()
	mountSecret(t, volume, "1", f)
	mounted, err := keydir.Open(volume)
	f.must(err)
	if key, err := mounted.Signer(); err != nil || kidOf(t, key.Public()) != f.kid("A") {
		t.Fatalf("Signer in a Secret: %v", err)
	}
	until := notified(t, mounted)
	until(func() bool { return stateNames(mounted) == "active" })

	f.must(f.Retire(t.Context(), f.kid("A"), true))
	mountSecret(t, volume, "2", f)
	f.must(os.RemoveAll(filepath.Join(volume, "..1")))
	until(func() bool { return mounted.Keys()[0].ID == f.kid("B") })
	if key, err := mounted.Signer(); err != nil || kidOf(t, key.Public()) != f.kid("B") {
		t.Errorf("Signer after the swap: %v", err)
	}
}

// TestLocalFollows joins the directory with the source of assertions that asks it.
func TestLocalFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := create(t, time.Hour)
		local, err := mint.NewLocal(mint.LocalConfig{Keys: f.Signer, Issuer: f.Issuer(), Subject: "spiffe://example.org/a", Audience: "api://AzureADTokenExchange"})
		f.must(err)
		if _, err := local.Assertion(t.Context()); err == nil || !strings.Contains(err.Error(), "svidecar keys export") {
			t.Errorf("Assertion before publication = %v, want what to do", err)
		}
		f.publish()
		f.rotate()
		f.publish()
		for _, row := range []struct {
			after time.Duration
			want  string
		}{{0, "A"}, {time.Hour - 1, "A"}, {1, "B"}, {linger, "B"}} {
			time.Sleep(row.after)
			got, err := local.Assertion(t.Context())
			if err != nil || f.name(got.Claims.KeyID) != row.want {
				t.Fatalf("after %v: %s, %v; want %s", row.after, got.Claims.KeyID, err, row.want)
			}
		}
		f.must(f.Retire(t.Context(), f.kid("B"), true))
		if got, err := local.Assertion(t.Context()); err != nil || f.name(got.Claims.KeyID) != "C" {
			t.Errorf("after B was stolen: %s, %v", got.Claims.KeyID, err)
		}
	})
}
