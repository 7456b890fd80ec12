package keydir_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/exchange/entratest"
	"github.com/svidecar/svidecar/internal/secret"
	"github.com/svidecar/svidecar/mint"
	"github.com/svidecar/svidecar/mint/keydir"
)

const (
	drillIssuer  = "https://issuer.example.com"
	drillSubject = "spiffe://example.com/orders"
	drillClient  = "11111111-1111-1111-1111-111111111111"
	drillTenant  = "22222222-2222-2222-2222-222222222222"
	audience     = "api://AzureADTokenExchange"
	kept         = time.Hour // that Entra keeps a copy of a key set
)

// TestRotationDrill lets apps ask all the while, from before a rotation to after
// the old key has left. Entra, which keeps a copy of the key set for an hour,
// refuses nothing.
func TestRotationDrill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDrill(t, 24*time.Hour, kept)
		begun := time.Now()
		d.run(t, begun.Add(2*time.Hour))
		old := d.signs(t)
		if _, err := d.dir.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.run(t, begun.Add(25*time.Hour))
		if now := d.signs(t); now != old {
			t.Errorf("the new key %s signs within the publication wait", now)
		}
		d.run(t, begun.Add(30*time.Hour))
		if now := d.signs(t); now == old {
			t.Errorf("the old key %s signs after the publication wait", old)
		}
		if keys := d.dir.Keys(); len(keys) != 1 || strings.Contains(string(d.published), old) {
			t.Errorf("%d keys are left, and the key set is %s; the old one is %s", len(keys), d.published, old)
		}
		if calls := d.entra.Calls(); len(calls.Refusals) > 0 || calls.Successes < 100 {
			t.Errorf("Entra granted %d tokens and refused %v; want hundreds, and none", calls.Successes, calls.Refusals)
		}
		if d.failed > 0 || d.asked < 1000 {
			t.Errorf("%d of %d requests failed", d.failed, d.asked)
		}
	})
}

// TestRotationWithoutTheWait is the same drill with a wait that is shorter than
// what Entra keeps: it shows the refusals that the wait prevents.
func TestRotationWithoutTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDrill(t, time.Second, kept)
		begun := time.Now()
		d.run(t, begun.Add(90*time.Minute))
		before := d.entra.Calls().Refusals
		if _, err := d.dir.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.run(t, begun.Add(4*time.Hour))
		const unknownKey = 7000272
		if after := d.entra.Calls().Refusals; len(before) > 0 || after[unknownKey] == 0 || len(after) != 1 {
			t.Errorf("Entra refused %v before the rotation and %v after it; want none, and AADSTS%d", before, after, unknownKey)
		}
		refused := d.entra.Calls().Refusals[unknownKey]
		d.run(t, begun.Add(6*time.Hour))
		if now := d.entra.Calls().Refusals[unknownKey]; now != refused {
			t.Errorf("%d refusals became %d long after Entra fetched the new key set", refused, now)
		}
	})
}

// TestLastAssertionOfAnOldKey redeems what the old key has signed just before the
// new one took over, just before that ends: the key set must still have the key,
// also for a verifier that keeps no copy.
func TestLastAssertionOfAnOldKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDrill(t, 24*time.Hour, 0)
		old := d.signs(t)
		if _, err := d.dir.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.publish(t)
		time.Sleep(24*time.Hour - time.Second)
		source, err := mint.NewLocal(mint.LocalConfig{Keys: d.dir.Signer, Issuer: drillIssuer, Subject: drillSubject, Audience: audience, Lifetime: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		last, err := source.Assertion(t.Context())
		if err != nil || last.Claims.KeyID != old {
			t.Fatalf("the last assertion is of %s, %v; want the old key %s", last.Claims.KeyID, err, old)
		}
		d.run(t, time.Now().Add(58*time.Minute))
		if now := d.signs(t); now == old {
			t.Fatalf("the old key %s still signs", old)
		}
		key := exchange.Key{Tenant: drillTenant, ClientID: drillClient, Scope: "https://vault.azure.net/.default"}
		if _, err := d.send(t.Context(), key, last.Value); err != nil {
			t.Errorf("the last assertion of the old key, 58 min later: %v", err)
		}
	})
}

// drill is an issuer, its workload and Entra, in one bubble of time.
type drill struct {
	dir       *keydir.Dir
	mu        sync.Mutex // of the documents: renewals fetch them in the background
	published []byte     // the key set
	discovery []byte
	entra     *entratest.Server
	source    *mint.Local
	tokens    *exchange.Source
	asked     int
	failed    int
}

// drillKey is the emulator's.
var drillKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func newDrill(t *testing.T, wait, kept time.Duration) *drill {
	t.Helper()
	d := &drill{}
	var err error
	d.dir, err = keydir.Create(filepath.Join(t.TempDir(), "keys"), keydir.Options{Issuer: drillIssuer, PublicationWait: wait})
	if err != nil {
		t.Fatal(err)
	}
	d.publish(t)
	d.source, err = mint.NewLocal(mint.LocalConfig{Keys: d.dir.Signer, Issuer: drillIssuer, Subject: drillSubject, Audience: audience})
	if err != nil {
		t.Fatal(err)
	}
	key, err := drillKey()
	if err != nil {
		t.Fatal(err)
	}
	d.entra, err = entratest.New(entratest.Config{
		Key: key, KeyCacheTTL: kept, TokenLifetime: 20 * time.Minute, IssuerClient: &http.Client{Transport: d},
		Apps: []entratest.App{{ClientID: drillClient, TenantID: drillTenant, Credentials: []entratest.FederatedCredential{
			{Issuer: drillIssuer, Subject: drillSubject, Audience: audience},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	d.tokens, err = exchange.New(exchange.Config{Redeem: d.redeem})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.tokens.Close)
	return d
}

// run lets three apps ask every two minutes until the end, and keeps the directory
// as a running issuer does.
func (d *drill) run(t *testing.T, end time.Time) {
	t.Helper()
	for time.Now().Before(end) {
		time.Sleep(2 * time.Minute)
		if err := d.dir.Reload(); err != nil {
			t.Fatal(err)
		}
		d.publish(t)
		if _, err := d.dir.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, resource := range []string{"https://vault.azure.net", "https://storage.azure.com", "https://graph.microsoft.com"} {
			d.asked++
			if _, err := d.tokens.Token(t.Context(), exchange.Key{Tenant: drillTenant, ClientID: drillClient, Scope: resource + "/.default"}); err != nil {
				if d.failed++; d.failed == 1 {
					t.Logf("the first failure: %v", err)
				}
			}
		}
		synctest.Wait() // renewals under way
	}
}

func (d *drill) publish(t *testing.T) {
	t.Helper()
	var ids []string
	for _, key := range d.dir.Keys() {
		ids = append(ids, key.ID)
	}
	discovery, keySet, err := mint.Documents(drillIssuer, d.dir.Documented()...)
	if err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	d.discovery, d.published = discovery, keySet
	d.mu.Unlock()
	if err := d.dir.MarkPublished(t.Context(), ids...); err != nil {
		t.Fatal(err)
	}
}

// signs is the key of the assertion that would be sent now.
func (d *drill) signs(t *testing.T) string {
	t.Helper()
	a, err := d.source.Assertion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return a.Claims.KeyID
}

// RoundTrip is the emulator's way to the issuer's documents.
func (d *drill) RoundTrip(r *http.Request) (*http.Response, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	body := map[string][]byte{
		drillIssuer + "/.well-known/openid-configuration": d.discovery,
		drillIssuer + "/openid/v1/jwks":                   d.published,
	}[r.URL.String()]
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
}

// redeem sends an assertion to the emulator, as MSAL would.
func (d *drill) redeem(ctx context.Context, key exchange.Key) (exchange.Token, error) {
	assertion, err := d.source.Assertion(ctx)
	if err != nil {
		return exchange.Token{}, err
	}
	return d.send(ctx, key, assertion.Value)
}

func (d *drill) send(ctx context.Context, key exchange.Key, assertion secret.Value) (exchange.Token, error) {
	form := url.Values{
		"client_id": {key.ClientID}, "scope": {key.Scope}, "grant_type": {"client_credentials"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion.Reveal()},
	}
	r := httptest.NewRequest(http.MethodPost, "https://127.0.0.1/"+key.Tenant+"/oauth2/v2.0/token", strings.NewReader(form.Encode())).WithContext(ctx)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	d.entra.Handler().ServeHTTP(w, r)
	var reply struct {
		Token   string `json:"access_token"`
		Expires int    `json:"expires_in"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &reply); err != nil || w.Code != http.StatusOK {
		return exchange.Token{}, fmt.Errorf("HTTP %d %s", w.Code, w.Body)
	}
	return exchange.NewToken(secret.New(reply.Token), time.Now(), time.Duration(reply.Expires)*time.Second, 0), nil
}
