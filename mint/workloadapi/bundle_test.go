//go:build unix

package workloadapi_test

import (
	"context"
	"crypto"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/svidecar/svidecar/mint/workloadapi"
)

// watch opens a stream of bundles.
func watch(t testing.TB, c workload.SpiffeWorkloadAPIClient) grpc.ServerStreamingClient[workload.JWTBundlesResponse] {
	t.Helper()
	stream, err := c.FetchJWTBundles(withHeader(t.Context()), &workload.JWTBundlesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// kids are those of the next message's bundle of a trust domain.
func kids(t testing.TB, stream grpc.ServerStreamingClient[workload.JWTBundlesResponse], domain string) (kids []string) {
	t.Helper()
	message, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var set struct{ Keys []struct{ Kid string } }
	if err := json.Unmarshal(message.GetBundles()[domain], &set); err != nil {
		t.Fatalf("the bundle of %s: %v", domain, err)
	}
	for _, key := range set.Keys {
		kids = append(kids, key.Kid)
	}
	return kids
}

func TestBundles(t *testing.T) {
	cfg := newIssuer(t).config()
	cfg.Identities = append(cfg.Identities, workloadapi.Identity{ID: other})
	address, _ := start(t, newServer(t, cfg))
	message, err := watch(t, raw(t, address)).Recv()
	if err != nil {
		t.Fatal(err)
	}
	if len(message.GetBundles()) != 2 {
		t.Errorf("%d bundles, want 2", len(message.GetBundles()))
	}
	for _, domain := range []string{"spiffe://example.org", "spiffe://example.com"} {
		var set struct{ Keys []map[string]any }
		if err := json.Unmarshal(message.GetBundles()[domain], &set); err != nil || len(set.Keys) != 1 {
			t.Fatalf("the bundle of %s: %v, error %v", domain, set, err)
		}
		delete(set.Keys[0], "n")
		want := map[string]any{"use": "jwt-svid", "kty": "RSA", "kid": keyID(t, testKey(t, 0)), "alg": "RS256", "e": "AQAB"}
		if diff := cmp.Diff(want, set.Keys[0]); diff != "" {
			t.Errorf("the key of %s (-want +got):\n%s", domain, diff)
		}
	}
}

// TestBundleChanges has go-spiffe watch while the keys change.
func TestBundleChanges(t *testing.T) {
	iss := newIssuer(t)
	server := newServer(t, iss.config())
	address, stop := start(t, server)
	w := &watcher{updates: make(chan *jwtbundle.Set, 8), errs: make(chan error, 8)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	c := client(t, address)
	go func() { ended <- c.WatchJWTBundles(ctx, w) }()
	seen := func() int {
		select {
		case update := <-w.updates:
			bundle, ok := update.Get(cart.TrustDomain())
			if !ok {
				t.Fatal("no bundle of the trust domain")
			}
			return len(bundle.JWTAuthorities())
		case <-time.After(10 * time.Second):
			t.Fatal("no update within 10 s")
		}
		return 0
	}
	if n := seen(); n != 1 {
		t.Errorf("at first %d keys, want 1", n)
	}
	iss.set(func(i *issuer) { i.keys = append(i.keys, testKey(t, 1).Public()) })
	server.Refresh()
	if n := seen(); n != 2 {
		t.Errorf("after a new key %d keys, want 2", n)
	}
	iss.set(func(i *issuer) { i.keys = i.keys[1:] })
	server.Refresh()
	if n := seen(); n != 1 {
		t.Errorf("after the old key went %d keys, want 1", n)
	}
	stop()
	checkStatus(t, <-w.errs, codes.Unavailable, "stopping")
	cancel()
	<-ended
}

type watcher struct {
	updates chan *jwtbundle.Set
	errs    chan error
}

func (w *watcher) OnJWTBundlesUpdate(set *jwtbundle.Set) { w.updates <- set }
func (w *watcher) OnJWTBundlesWatchError(err error) {
	select {
	case w.errs <- err:
	default: // go-spiffe tries again and again
	}
}

// TestBundleKeysAreChecked: a key that may not be published ends the stream, and
// no answer is given by it.
func TestBundleKeysAreChecked(t *testing.T) {
	for name, keys := range map[string][]crypto.PublicKey{
		"none":          {},
		"no RSA key":    {"key"},
		"a nil key":     {nil},
		"one twice":     {testKey(t, 0).Public(), testKey(t, 0).Public()},
		"a private one": {rsaKey(t, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			iss := newIssuer(t)
			server := newServer(t, iss.config())
			address, _ := start(t, server)
			stream := watch(t, raw(t, address))
			kids(t, stream, "spiffe://example.org")
			iss.set(func(i *issuer) { i.keys = keys })
			server.Refresh()
			_, err := stream.Recv()
			checkStatus(t, err, codes.Unavailable, "its log says why")
			for call, err := range everyCall(withHeader(t.Context()), raw(t, address)) {
				if call == "FetchJWTSVID" || call == "ValidateJWTSVID" {
					checkStatus(t, err, codes.Unavailable, "its log says why")
				}
			}
			if iss.told() == "" {
				t.Error("nobody was told")
			}
		})
	}
}

// TestBundleIsSentWhenItChanges and at no other time: programs reload by it.
func TestBundleIsSentWhenItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newServer(t, newIssuer(t).config())
		c, _ := bubble(t, server)
		stream := watch(t, c)
		kids(t, stream, "spiffe://example.org")
		go func() {
			if message, err := stream.Recv(); err == nil {
				t.Errorf("an update for no change: %v", message)
			}
		}()
		for range 3 {
			server.Refresh()
			synctest.Wait()
			time.Sleep(2 * time.Minute)
		}
	})
}

// TestBundleIsPolled is without Refresh.
func TestBundleIsPolled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iss := newIssuer(t)
		c, _ := bubble(t, newServer(t, iss.config()))
		stream := watch(t, c)
		kids(t, stream, "spiffe://example.org")
		begin := time.Now()
		iss.set(func(i *issuer) { i.keys = []crypto.PublicKey{testKey(t, 1).Public()} })
		got := kids(t, stream, "spiffe://example.org")
		if want := []string{keyID(t, testKey(t, 1))}; !cmp.Equal(got, want) || time.Since(begin) > time.Minute {
			t.Errorf("after %v keys %v, want %v within a minute", time.Since(begin), got, want)
		}
	})
}
