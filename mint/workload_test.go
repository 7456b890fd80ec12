package mint_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/svidecar/svidecar/mint"
)

func newWorkload(t testing.TB, cfg mint.WorkloadConfig) *mint.Workload {
	t.Helper()
	if cfg.Audience == "" {
		cfg.Audience = audience
	}
	w, err := mint.NewWorkload(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return w
}

func mustAssert(t testing.TB, w *mint.Workload) mint.Assertion {
	t.Helper()
	got, err := w.Assertion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func same(a, b mint.Assertion) bool { return a.Value.Equal(b.Value.Reveal()) }

// soon waits until done says so, and fails after limit.
func soon(t *testing.T, limit time.Duration, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func TestNewWorkloadRefuses(t *testing.T) {
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "")
	good := mint.WorkloadConfig{Address: "tcp://127.0.0.1:1", Audience: audience}
	for _, tt := range []struct {
		name, field string
		change      func(*mint.WorkloadConfig)
	}{
		{"no address", "Address: required, as SPIFFE_ENDPOINT_SOCKET", func(c *mint.WorkloadConfig) { c.Address = "" }},
		{"address without scheme", "Address", func(c *mint.WorkloadConfig) { c.Address = "/run/agent.sock" }},
		{"https address", "Address", func(c *mint.WorkloadConfig) { c.Address = "https://127.0.0.1:1" }},
		{"tcp by name", "Address", func(c *mint.WorkloadConfig) { c.Address = "tcp://localhost:1" }},
		{"tcp without port", "Address", func(c *mint.WorkloadConfig) { c.Address = "tcp://127.0.0.1" }},
		{"address with a newline", "Address", func(c *mint.WorkloadConfig) { c.Address = "unix:///run/\nx" }},
		{"two slashes", "Address", func(c *mint.WorkloadConfig) { c.Address = "unix://run/agent.sock" }},
		{"opaque path", "Address", func(c *mint.WorkloadConfig) { c.Address = "unix:run/agent.sock" }},
		{"long path", "Address", func(c *mint.WorkloadConfig) { c.Address = "unix:///" + strings.Repeat("a", 107) }},
		{"no audience", "Audience", func(c *mint.WorkloadConfig) { c.Audience = "" }},
		{"audience with a space", "Audience", func(c *mint.WorkloadConfig) { c.Audience = "a b" }},
		{"subject is no SPIFFE ID", "Subject", func(c *mint.WorkloadConfig) { c.Subject = "shop" }},
		{"subject without path", "Subject", func(c *mint.WorkloadConfig) { c.Subject = "spiffe://example.org" }},
		{"subject and hint", "Hint", func(c *mint.WorkloadConfig) { c.Subject, c.Hint = subject, "internal" }},
		{"negative grace", "StartupGrace", func(c *mint.WorkloadConfig) { c.StartupGrace = -1 }},
		{"grace over an hour", "StartupGrace", func(c *mint.WorkloadConfig) { c.StartupGrace = time.Hour + 1 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg)
			_, err := mint.NewWorkload(cfg)
			if err == nil || !strings.HasPrefix(err.Error(), "mint: WorkloadConfig."+tt.field) {
				t.Fatalf("NewWorkload(%+v): %v, want a refusal of %s", cfg, err, tt.field)
			}
			checkOneLine(t, err)
		})
	}
}

func TestWorkloadOpensNothingUntilUsed(t *testing.T) {
	a := startAgent(t)
	a.kill()
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", a.address)
	w := newWorkload(t, mint.WorkloadConfig{}) // the agent is away
	a.start()
	mustAssert(t, w)
	unused := newWorkload(t, mint.WorkloadConfig{})
	if err := unused.Close(); err != nil {
		t.Error(err)
	}
}

func TestWorkloadFetches(t *testing.T) {
	for _, tt := range []struct {
		name  string
		start func(testing.TB) *agent
	}{
		{"local socket", startAgent},
		{"tcp", func(t testing.TB) *agent { return startAgentAt(t, "tcp://127.0.0.1:0") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := tt.start(t)
			raw := svid(t, time.Now(), time.Hour)
			a.play(only(raw))
			got := mustAssert(t, newWorkload(t, mint.WorkloadConfig{Address: a.address}))
			want, err := mint.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got.Claims); diff != "" || !got.Value.Equal(raw) {
				t.Errorf("another token, or claims -want +got:\n%s", diff)
			}
		})
	}
}

func TestWorkloadReusesToHalfLife(t *testing.T) {
	a := startAgent(t)
	w := newWorkload(t, mint.WorkloadConfig{Address: a.address})
	a.play(only(svid(t, time.Now().Add(-29*time.Second), time.Minute))) // half of it is over in a second
	first := mustAssert(t, w)
	for range 10 {
		if got := mustAssert(t, w); !same(got, first) {
			t.Fatal("another assertion before half-life")
		}
		first.Claims.Audience[0] = "changed by a caller"
	}
	if got := mustAssert(t, w); got.Claims.Audience[0] != audience || a.calls() != 1 {
		t.Errorf("%d fetches, audience %q; want 1 fetch and the agent's audience", a.calls(), got.Claims.Audience)
	}
	a.play(script{})
	soon(t, 3*time.Second, "a new assertion after half-life", func() bool { return !same(mustAssert(t, w), first) })
	mustAssert(t, w)
	if a.calls() != 2 {
		t.Errorf("%d fetches, want 2", a.calls())
	}
}

func TestWorkloadFreshFetchesAnew(t *testing.T) {
	a := startAgent(t)
	w := newWorkload(t, mint.WorkloadConfig{Address: a.address})
	first := mustAssert(t, w)
	a.play(only(svid(t, time.Now(), 2*time.Hour)))
	got, err := w.Fresh(t.Context())
	if err != nil || same(got, first) || a.calls() != 2 {
		t.Errorf("Fresh: %v after %d fetches; want a new assertion after 2", err, a.calls())
	}
	a.play(script{fail: status.Error(codes.Unavailable, "connection to server lost")})
	_, err = w.Fresh(t.Context())
	checkRefused(t, err, true, "connection to server lost")
}

// checkRefused is checkError without a cause.
func checkRefused(t *testing.T, err error, temporary bool, says ...string) {
	t.Helper()
	detail, ok := errors.AsType[*mint.Error](err)
	if !ok {
		t.Fatalf("error %v is a %T, want *mint.Error", err, err)
	}
	if detail.Temporary() != temporary || detail.Path != "" {
		t.Errorf("error %v: temporary %v, path %q; want %v and no path", err, detail.Temporary(), detail.Path, temporary)
	}
	for _, want := range append(says, "mint: Workload API \"", "; ") {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	checkOneLine(t, err)
}

// TestWorkloadAgentRefuses goes through what an agent may answer instead.
func TestWorkloadAgentRefuses(t *testing.T) {
	a := startAgent(t)
	for _, tt := range []struct {
		code      codes.Code
		temporary bool
		says      string
	}{
		{codes.PermissionDenied, false, "registration entry"},
		{codes.Unavailable, true, "check that the SPIRE agent runs on this machine"},
		{codes.InvalidArgument, false, "check the source's audience and subject"},
		{codes.DeadlineExceeded, true, "hangs"},
		{codes.Unimplemented, false, "no Workload API is served there"},
		{codes.Internal, true, "the agent answered Internal"},
		{codes.Canceled, true, "the agent answered Canceled"},
		{codes.Code(99), true, "the agent answered Code(99)"},
	} {
		t.Run(tt.code.String(), func(t *testing.T) {
			a.play(script{fail: status.Error(tt.code, "the agent's\n\x1b[31m words")})
			_, err := newWorkload(t, mint.WorkloadConfig{Address: a.address, StartupGrace: 1}).Assertion(t.Context())
			checkRefused(t, err, tt.temporary, tt.says, "the agent's ?[31m words")
			if got := status.Code(errors.Unwrap(err)); got != tt.code {
				t.Errorf("the cause has code %v, want %v", got, tt.code)
			}
		})
	}
}

func TestWorkloadDeniedMayStillBeIssued(t *testing.T) {
	a := startAgent(t)
	denied := script{fail: status.Error(codes.PermissionDenied, "no identity issued")}
	a.play(denied)
	early := newWorkload(t, mint.WorkloadConfig{Address: a.address})
	_, err := early.Assertion(t.Context())
	checkRefused(t, err, true, "it may still do so within 1m0s of the start", "registration entry")

	late := newWorkload(t, mint.WorkloadConfig{Address: a.address, StartupGrace: 1, Subject: subject})
	_, err = late.Assertion(t.Context())
	checkRefused(t, err, false, "no identity issued", "registration entry", subject)
	a.play(script{})
	mustAssert(t, late)
	a.play(denied)
	_, err = late.Fresh(t.Context())
	checkRefused(t, err, true, "it did before")
}

func TestWorkloadAgentIsNotThere(t *testing.T) {
	a := startAgent(t)
	a.kill()
	w := newWorkload(t, mint.WorkloadConfig{Address: a.address})
	start := time.Now()
	_, err := w.Assertion(t.Context())
	checkRefused(t, err, true, "unavailable", "dial", "check that the SPIRE agent runs")
	if waited := time.Since(start); waited > 2*time.Second {
		t.Errorf("said so after %v", waited)
	}
}

// TestWorkloadRefusesForEntra holds every rule that Entra would enforce with a
// worse message.
func TestWorkloadRefusesForEntra(t *testing.T) {
	now := time.Now()
	header := func(h string) string { return forge(t, h, payload(now, now.Add(time.Hour))) }
	claims := func(format string, args ...any) string { return forge(t, goodHeader, fmt.Sprintf(format, args...)) }
	times := fmt.Sprintf(`"iat":%d,"exp":%d`, now.Unix(), now.Add(time.Hour).Unix())
	for _, tt := range []struct {
		name, raw string
		cause     error
		temporary bool
		says      string
	}{
		{"ES256", header(`{"alg":"ES256","kid":"k1","typ":"JWT"}`), nil, false, `jwt_key_type = "rsa-2048"`},
		{"PS256", header(`{"alg":"PS256","kid":"k1","typ":"JWT"}`), nil, false, "signed with PS256"},
		{"no kid", header(`{"alg":"RS256","typ":"JWT"}`), nil, false, "no kid"},
		{"typ JOSE", header(`{"alg":"RS256","kid":"k1","typ":"JOSE"}`), nil, false, `typ is "JOSE"`},
		{"typ in small letters", header(`{"alg":"RS256","kid":"k1","typ":"jwt"}`), nil, false, `typ is "jwt"`},
		{"empty typ", header(`{"alg":"RS256","kid":"k1","typ":""}`), mint.ErrMalformed, false, "not what the SPIFFE standards want"},
		{"no iss", claims(`{"sub":%q,"aud":%q,%s}`, subject, audience, times), nil, false, "jwt_issuer"},
		{"no iat", claims(`{"iss":%q,"sub":%q,"aud":%q,"exp":%d}`, issuer, subject, audience, now.Add(time.Hour).Unix()), nil, false, "no iat"},
		{"no aud", claims(`{"iss":%q,"sub":%q,%s}`, issuer, subject, times), nil, false, "the audience is []"},
		{"another aud", claims(`{"iss":%q,"sub":%q,"aud":"other",%s}`, issuer, subject, times), nil, false, `the audience is ["other"]`},
		{"aud of another case", claims(`{"iss":%q,"sub":%q,"aud":%q,%s}`, issuer, subject, strings.ToLower(audience), times), nil, false, "alone"},
		{"two auds", claims(`{"iss":%q,"sub":%q,"aud":[%q,"other"],%s}`, issuer, subject, audience, times), nil, false, "alone"},
		{"another sub", claims(`{"iss":%q,"sub":"spiffe://example.org/other","aud":%q,%s}`, issuer, audience, times), mint.ErrMalformed, false, "but its sub is"},
		{"no exp", claims(`{"iss":%q,"sub":%q,"aud":%q,"iat":%d}`, issuer, subject, audience, now.Unix()), mint.ErrMalformed, false, "no exp"},
		{"expired", svid(t, now.Add(-time.Hour), 30*time.Minute), mint.ErrExpired, true, "clocks"},
		{"about to expire", svid(t, now.Add(-time.Hour), time.Hour+9*time.Second), mint.ErrExpired, true, "too soon to reach Entra"},
		{"from the future", svid(t, now.Add(2*time.Minute), time.Hour), mint.ErrNotYetValid, true, "clocks"},
		{"issued in the future", claims(`{"iss":%q,"sub":%q,"aud":%q,"iat":%d,"exp":%d}`, issuer, subject, audience,
			now.Add(2*time.Minute).Unix(), now.Add(time.Hour).Unix()), mint.ErrNotYetValid, true, "clocks"},
		{"too long", svid(t, now, 25*time.Hour+time.Second), nil, false, "default_jwt_svid_ttl"},
		{"no JWT", "hello", mint.ErrMalformed, false, "no JWT-SVID"},
		{"empty", "", mint.ErrMalformed, false, "no JWT-SVID"},
		{"alg none", header(`{"alg":"none"}`), mint.ErrMalformed, false, "no JWT-SVID"},
		{"claim of a wrong type", claims(`{"iss":1,"sub":%q}`, subject), mint.ErrMalformed, false, "no JWT-SVID"},
		{"damaged", svid(t, now, time.Hour)[1:], mint.ErrMalformed, false, "no JWT-SVID"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := startAgent(t)
			a.play(only(tt.raw))
			_, err := newWorkload(t, mint.WorkloadConfig{Address: a.address}).Assertion(t.Context())
			checkRefused(t, err, tt.temporary, tt.says)
			if tt.cause != nil && !errors.Is(err, tt.cause) {
				t.Errorf("error %v, want one that is %v", err, tt.cause)
			}
			if tt.raw != "" {
				checkNoLeak(t, err, tt.raw)
			}
		})
	}
}

func TestWorkloadTakesTheLimits(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct{ name, raw string }{
		{"no typ", forge(t, `{"alg":"RS256","kid":"k1"}`, payload(now, now.Add(time.Hour)))},
		{"clock ahead by less than a minute", svid(t, now.Add(50*time.Second), time.Hour)},
		{"25 hours", svid(t, now, 25*time.Hour)},
		{"12 seconds left", svid(t, now.Add(-time.Hour), time.Hour+12*time.Second)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := startAgent(t)
			a.play(only(tt.raw))
			mustAssert(t, newWorkload(t, mint.WorkloadConfig{Address: a.address}))
		})
	}
}

func TestWorkloadChooses(t *testing.T) {
	now := time.Now()
	const other = "spiffe://example.org/ns/shop/sa/till"
	good := svid(t, now, time.Hour)
	twin := svid(t, now, 2*time.Hour)
	till := strings.Replace(payload(now, now.Add(time.Hour)), subject, other, 1)
	both := []*workload.JWTSVID{
		entry(other, "external", forge(t, `{"alg":"ES256"}`, till)), // bad, but nobody asks for it
		entry(subject, "internal", good),
		entry(subject, "internal", twin),
	}
	for _, tt := range []struct {
		name    string
		cfg     mint.WorkloadConfig
		entries []*workload.JWTSVID
		says    []string // empty: good is chosen
	}{
		{"none", mint.WorkloadConfig{}, []*workload.JWTSVID{}, []string{"without any JWT-SVID", "registration entry"}},
		{"several", mint.WorkloadConfig{}, both, []string{
			"several identities", other, `(hint "external")`, subject, `(hint "internal")`, "set the source's subject", "hint",
		}},
		{"hint of none", mint.WorkloadConfig{Hint: "nowhere"}, both, []string{`no identity has the hint "nowhere"`, `(hint "external")`, subject}},
		{"subject of none", mint.WorkloadConfig{Subject: subject + "2"}, both, []string{"no identity issued", subject + "2"}},
		{"subject", mint.WorkloadConfig{Subject: subject}, both, nil},
		{"hint", mint.WorkloadConfig{Hint: "internal"}, both, nil},
		{"several of one SPIFFE ID", mint.WorkloadConfig{}, both[1:], nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := startAgent(t)
			a.play(script{entries: tt.entries})
			tt.cfg.Address, tt.cfg.StartupGrace = a.address, 1
			got, err := newWorkload(t, tt.cfg).Assertion(t.Context())
			switch {
			case len(tt.says) > 0:
				checkRefused(t, err, false, tt.says...)
			case err != nil || !got.Value.Equal(good):
				t.Errorf("another assertion, or error %v", err)
			}
		})
	}
}

// TestWorkloadAgentAnswersWithAnother has agents that no standard allows.
func TestWorkloadAgentAnswersWithAnother(t *testing.T) {
	now := time.Now()
	claims := payload(now, now.Add(time.Hour))
	a := startAgent(t)
	a.play(script{loose: true, entries: []*workload.JWTSVID{entry(subject, "", forge(t, goodHeader, claims))}})
	_, err := newWorkload(t, mint.WorkloadConfig{Address: a.address, Subject: subject + "2"}).Assertion(t.Context())
	checkRefused(t, err, true, "without the subject", subject+"2", subject)

	a.play(script{entries: []*workload.JWTSVID{entry("shop", "", forge(t, goodHeader, strings.Replace(claims, subject, "shop", 1)))}})
	_, err = newWorkload(t, mint.WorkloadConfig{Address: a.address}).Assertion(t.Context())
	checkRefused(t, err, false, "no SPIFFE ID")
}

func TestWorkloadListsABoundedNumber(t *testing.T) {
	a := startAgent(t)
	var many []*workload.JWTSVID
	for i := range 100 {
		many = append(many, entry(fmt.Sprintf("%s%d", subject, i), strings.Repeat("h", 20), "x"))
	}
	a.play(script{entries: many})
	_, err := newWorkload(t, mint.WorkloadConfig{Address: a.address}).Assertion(t.Context())
	checkRefused(t, err, false, subject+"9", "and 90 more")
}

// TestWorkloadOutage stops the agent, waits, and starts it again at the same
// address, while the assertion is past half of its life.
func TestWorkloadOutage(t *testing.T) {
	a := startAgent(t)
	w := newWorkload(t, mint.WorkloadConfig{Address: a.address})
	a.play(only(svid(t, time.Now().Add(-time.Hour), time.Hour+time.Minute)))
	first := mustAssert(t, w)
	a.kill()
	away := time.After(5 * time.Second) // gRPC's own back-off would be at 2.7 s by then
	for gone := false; !gone; {
		start := time.Now()
		if got := mustAssert(t, w); !same(got, first) || time.Since(start) > 1500*time.Millisecond {
			t.Fatalf("another assertion, or after %v", time.Since(start))
		}
		select {
		case <-away:
			gone = true
		case <-time.After(50 * time.Millisecond):
		}
	}
	a.play(script{})
	a.start()
	soon(t, 1500*time.Millisecond, "a new assertion", func() bool { return !same(mustAssert(t, w), first) })
}

func TestWorkloadCopyServesUntilItsEnd(t *testing.T) {
	a := startAgent(t)
	w := newWorkload(t, mint.WorkloadConfig{Address: a.address})
	a.play(only(svid(t, time.Now().Add(-time.Hour), time.Hour+12*time.Second)))
	mustAssert(t, w)
	a.kill()
	soon(t, 4*time.Second, "a refusal 10 s before the end", func() bool {
		got, err := w.Assertion(t.Context())
		if err == nil && time.Until(got.Claims.Expiry) < 9*time.Second {
			t.Fatal("an assertion that ends on the way to Entra")
		}
		return err != nil
	})
	_, err := w.Assertion(t.Context())
	checkRefused(t, err, true, "unavailable")
}

func TestWorkloadHangs(t *testing.T) {
	a := startAgent(t)
	w := newWorkload(t, mint.WorkloadConfig{Address: a.address})
	answer := make(chan struct{})
	old := only(svid(t, time.Now().Add(-time.Hour), 2*time.Hour-time.Minute))
	old.hang = answer
	a.play(old)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := w.Assertion(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without an assertion: %v, want the caller's deadline", err)
	}
	close(answer) // the abandoned fetch completes and is shared
	first := mustAssert(t, w)

	hang := make(chan struct{})
	a.play(script{hang: hang})
	start := time.Now()
	if got := mustAssert(t, w); !same(got, first) || time.Since(start) > 1500*time.Millisecond {
		t.Errorf("past half-life: another assertion, or after %v; want the old one within a second", time.Since(start))
	}
	close(hang)
	soon(t, time.Second, "the new assertion", func() bool { return !same(mustAssert(t, w), first) })
}

// TestWorkloadFetchIsBounded waits as long as a caller may have to.
func TestWorkloadFetchIsBounded(t *testing.T) {
	a := startAgent(t)
	a.play(script{hang: make(chan struct{})})
	start := time.Now()
	_, err := newWorkload(t, mint.WorkloadConfig{Address: a.address}).Assertion(t.Context())
	checkRefused(t, err, true, "no answer within 5s", "hangs")
	if waited := time.Since(start).Seconds(); math.Abs(waited-5) > 2 {
		t.Errorf("waited %v s, want 5", waited)
	}
}

func TestWorkloadVerifiesByBundle(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		name      string
		raw       string
		bundles   map[string][]byte
		temporary bool
		says      string // empty: taken
	}{
		{"no bundles", svid(t, now, time.Hour), nil, true, "no identity issued"},
		{"another trust domain", svid(t, now, time.Hour), bundle(t, "example.com", "k1", testKey(t).Public()), false, `no bundle of its trust domain "example.org"`},
		{"another kid", svid(t, now, time.Hour), bundle(t, "example.org", "k2", testKey(t).Public()), true, "no key of this kid"},
		{"another key", svid(t, now, time.Hour), bundle(t, "example.org", "k1", otherKey(t).Public()), false, "signature does not fit"},
		{"no bundle document", svid(t, now, time.Hour), map[string][]byte{"spiffe://example.org": []byte("{")}, false, "SPIFFE standards"},
		{"good", svid(t, now, time.Hour), bundle(t, "example.org", "k1", testKey(t).Public()), false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := startAgent(t)
			s := only(tt.raw)
			s.bundles = tt.bundles
			a.play(s)
			w := newWorkload(t, mint.WorkloadConfig{Address: a.address, VerifyBundle: true})
			got, err := w.Assertion(t.Context())
			if tt.says == "" {
				if err != nil || !got.Value.Equal(tt.raw) {
					t.Errorf("another assertion, or error %v", err)
				}
				return
			}
			checkRefused(t, err, tt.temporary, tt.says)
			checkNoLeak(t, err, tt.raw)
		})
	}
}

func TestWorkloadConcurrentCallersShare(t *testing.T) {
	a := startAgent(t)
	answer := make(chan struct{})
	a.play(script{hang: answer})
	w := newWorkload(t, mint.WorkloadConfig{Address: a.address})
	var callers sync.WaitGroup
	for range 50 {
		callers.Go(func() {
			if _, err := w.Assertion(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	<-a.arrived
	close(answer)
	callers.Wait()
	if a.calls() != 1 {
		t.Errorf("50 callers: %d fetches, want 1", a.calls())
	}
}

// TestWorkloadConcurrent is for the race detector: renewals, Fresh and Close run
// against each other.
func TestWorkloadConcurrent(t *testing.T) {
	a := startAgent(t)
	a.play(only(svid(t, time.Now().Add(-time.Hour), time.Hour+time.Minute))) // fetched by each call
	w := newWorkload(t, mint.WorkloadConfig{Address: a.address})
	var callers sync.WaitGroup
	for i := range 16 {
		callers.Go(func() {
			for range 20 {
				ask := w.Assertion
				if i == 0 {
					ask = w.Fresh
				}
				if _, err := ask(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	for range 8 {
		callers.Go(func() { _, _ = w.Fresh(t.Context()) })
		callers.Go(func() { _ = w.Close() })
	}
	callers.Wait()
}

func TestWorkloadContextDone(t *testing.T) {
	cause := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	w := newWorkload(t, mint.WorkloadConfig{Address: "tcp://127.0.0.1:1"})
	if _, err := w.Assertion(ctx); !errors.Is(err, cause) {
		t.Errorf("Assertion with a done context: %v, want %v", err, cause)
	}
}

func TestWorkloadClose(t *testing.T) {
	a := startAgent(t)
	a.play(script{hang: make(chan struct{})})
	w := newWorkload(t, mint.WorkloadConfig{Address: a.address})
	failed := make(chan error, 1)
	go func() {
		_, err := w.Assertion(context.Background())
		failed <- err
	}()
	<-a.arrived // the fetch is under way
	start := time.Now()
	for range 2 {
		if err := w.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if waited := time.Since(start); waited > 2*time.Second {
		t.Errorf("Close took %v: the fetch was not ended", waited)
	}
	checkRefused(t, <-failed, false, "closed")
	_, err := w.Assertion(t.Context())
	checkRefused(t, err, false, "closed")
	a.kill()
	soon(t, 2*time.Second, "all goroutines of the client ended", func() bool {
		text := stacks()
		return !strings.Contains(text, "google.golang.org/grpc") && !strings.Contains(text, "mint.(*Workload)")
	})
}

// TestWorkloadCloseWaits is many tries, since a fetch that is not waited for
// ends soon after all the same.
func TestWorkloadCloseWaits(t *testing.T) {
	a := startAgent(t)
	a.play(script{hang: make(chan struct{})})
	for range 50 {
		w := newWorkload(t, mint.WorkloadConfig{Address: a.address})
		ctx, cancel := context.WithCancel(t.Context())
		var caller sync.WaitGroup
		caller.Go(func() { _, _ = w.Assertion(ctx) })
		<-a.arrived
		cancel() // the fetch goes on
		caller.Wait()
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if strings.Contains(stacks(), "mint.(*Workload).fetch") {
			t.Fatal("Close did not wait for the fetch")
		}
	}
}

// stacks shows all goroutines.
func stacks() string {
	text := make([]byte, 1<<20)
	return string(text[:runtime.Stack(text, true)])
}

// TestWorkloadDamagedTokensDoNotLeak looks for parts of a token in whatever is
// said about its damage.
func TestWorkloadDamagedTokensDoNotLeak(t *testing.T) {
	a := startAgent(t)
	good := svid(t, time.Now(), time.Hour)
	w := newWorkload(t, mint.WorkloadConfig{Address: a.address, VerifyBundle: true})
	refused := 0
	for raw := range corrupted(good) {
		if utf8.ValidString(raw) { // as protobuf wants its strings
			s := only(raw)
			s.bundles = bundle(t, "example.org", "k1", testKey(t).Public())
			a.play(s)
			if _, err := w.Fresh(t.Context()); err != nil {
				refused++
				checkNoLeak(t, err, good)
				checkOneLine(t, err)
			}
		}
	}
	if refused < 200 {
		t.Errorf("only %d refusals: the test has lost its teeth", refused)
	}
}
