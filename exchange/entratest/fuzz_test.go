package entratest_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/svidecar/svidecar/exchange/entratest"
)

// The parser must not panic, and only the one signed spelling of an assertion
// may be accepted.
func FuzzAssertion(f *testing.F) {
	fx := newFixture(f, cacheKeys)
	handler := &http.Client{Transport: inMemory{fx.entra.Handler()}}
	long := newAttempt(fx)
	long.claims["exp"] = long.claims["iat"].(int64) + 24*3600
	good := long.sign()
	for _, seed := range []string{
		"", ".", "..", "...", good, good + "=", good + "\n", good[:len(good)-1], "e30.e30.AA", b64([]byte(`{"alg":"RS256","kid":"k1"}`)) + ".e30.AA",
		b64([]byte(`{"alg":"none"}`)) + ".e30.", b64([]byte(`{"alg":"RS256","kid":"k1","alg":""}`)) + ".bnVsbA.AA",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, assertion string) {
		a := newAttempt(fx)
		a.noAssertion = true // spares a signature
		a.form.Set("client_assertion", assertion)
		resp, err := handler.Do(a.request(fx.entra.URL()))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if ok := resp.StatusCode == http.StatusOK; ok != (assertion == good) {
			t.Errorf("status = %d for the assertion %q", resp.StatusCode, assertion)
		}
	})
}

// Each single change of a good assertion must be refused.
func TestMutatedAssertions(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, cacheKeys)
	client := &http.Client{Transport: inMemory{fx.entra.Handler()}}
	good := newAttempt(fx).sign()
	for i := range good {
		for _, c := range []byte("A_=") {
			if good[i] == c {
				continue
			}
			a := newAttempt(fx)
			a.noAssertion = true // spares a signature
			a.form.Set("client_assertion", good[:i]+string(rune(c))+good[i+1:])
			resp, err := client.Do(a.request(fx.entra.URL()))
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				t.Fatalf("accepted with byte %d changed to %q", i, c)
			}
		}
	}
}

func cacheKeys(c *entratest.Config) { c.KeyCacheTTL = time.Hour }
