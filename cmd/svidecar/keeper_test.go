package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/svidecar/svidecar/mint/keydir"
)

// TestKeeperRotatesInTime lets a hundred days pass in which nobody touches the
// directory.
func TestKeeperRotatesInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, err := keydir.Create(filepath.Join(t.TempDir(), "keys"), keydir.Options{Issuer: "https://issuer.example.com"})
		if err != nil {
			t.Fatal(err)
		}
		publish := func(ctx context.Context) error { return dir.MarkPublished(ctx, kids(dir.Keys())...) }
		k := &keeper{dir: dir, every: 30 * 24 * time.Hour, log: slog.New(slog.DiscardHandler), publish: publish}
		k.tend(t.Context(), nil)
		seen := map[string]bool{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			k.rounds(ctx)
		}()
		for range 100 {
			time.Sleep(24*time.Hour + time.Second)
			synctest.Wait()
			keys := dir.Keys()
			if seen[keys[0].ID] = true; keys[0].State != keydir.Active || time.Since(keys[0].SignsFrom) > 31*24*time.Hour || len(keys) > 2 {
				t.Fatalf("after %d keys there are %+v", len(seen), keys)
			}
		}
		if cancel(); len(seen) != 4 {
			t.Errorf("%d keys signed in a hundred days, want 4", len(seen))
		}
		<-done
	})
}

// TestKeeperGoesOnInTrouble: that no new key can be made keeps the documents from
// nothing, and the next look is soon.
func TestKeeperGoesOnInTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, err := keydir.Create(filepath.Join(t.TempDir(), "keys"), keydir.Options{Issuer: "https://issuer.example.com"})
		if err != nil {
			t.Fatal(err)
		}
		published := 0
		k := &keeper{dir: dir, every: time.Hour, log: slog.New(slog.DiscardHandler), publish: func(context.Context) error { published++; return nil }}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		k.tend(t.Context(), nil)
		go func() {
			defer close(done)
			k.rounds(ctx)
		}()
		time.Sleep(10*time.Minute + time.Second)
		cancel()
		<-done
		if published < 10 {
			t.Errorf("published %d times in ten minutes of trouble", published)
		}
	})
}

// TestKeeperRuns: a running keeper looks again though nothing changes.
func TestKeeperRuns(t *testing.T) {
	dir, err := keydir.Create(filepath.Join(t.TempDir(), "keys"), keydir.Options{Issuer: "https://issuer.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	looks := 0
	k := &keeper{dir: dir, round: time.Millisecond, log: slog.New(slog.DiscardHandler), publish: func(context.Context) error {
		if looks++; looks == 10 {
			cancel()
		}
		return nil
	}}
	stuck := time.AfterFunc(patience, cancel)
	defer stuck.Stop()
	if k.run(ctx); looks < 10 {
		t.Errorf("%d looks", looks)
	}
}

// TestKeeperStarts: a rotation that cannot be made today ends no start, one that
// never can does.
func TestKeeperStarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	dir, err := keydir.Create(path, keydir.Options{Issuer: "https://issuer.example.com", PublicationWait: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.MarkPublished(t.Context(), kids(dir.Keys())...); err != nil {
		t.Fatal(err)
	}
	k := &keeper{dir: dir, every: time.Hour, log: slog.New(slog.DiscardHandler)}
	if err := k.start(t.Context()); !errors.Is(err, keydir.ErrTooOften) {
		t.Errorf("rotation every hour: %v, want it refused", err)
	}
	age(t, filepath.Join(path, "keys.json"), 100*24*time.Hour)
	if err := os.RemoveAll(filepath.Join(path, ".lock")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(path, ".lock"), 0o700); err != nil { // nobody can lock that
		t.Fatal(err)
	}
	var log bytes.Buffer
	k = &keeper{dir: dir, every: 90 * 24 * time.Hour, log: slog.New(slog.NewTextHandler(&log, nil))}
	if err := k.start(t.Context()); err != nil {
		t.Errorf("a rotation that cannot be made today: %v", err)
	}
	if k.tend(t.Context(), nil); !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "lock") {
		t.Errorf("the log does not say why no key is made:\n%s", log.String())
	}
}

// TestKeeperLooksAtTheNextKey: that its file is missing is known before it signs.
func TestKeeperLooksAtTheNextKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	dir, err := keydir.Create(path, keydir.Options{Issuer: "https://issuer.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.MarkPublished(t.Context(), kids(dir.Keys())...); err != nil {
		t.Fatal(err)
	}
	next, err := dir.Rotate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.MarkPublished(t.Context(), next.ID); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(path, next.ID+".pem")); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	k := &keeper{dir: dir, log: slog.New(slog.NewTextHandler(&log, nil))}
	if k.tend(t.Context(), nil); !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), next.ID) {
		t.Errorf("the log does not name the missing file of %s:\n%s", next.ID, log.String())
	}
}
