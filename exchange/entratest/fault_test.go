package entratest_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/exchange/entratest"
)

func TestSetFaultRefuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	for name, fault := range map[string]entratest.Fault{
		"two kinds":         {Hang: true, Reset: true},
		"status of garbage": {Garbage: true, Status: 500},
		"status 200":        {Status: 200},
		"unknown code":      {AADSTS: 1},
		"long latency":      {Latency: time.Hour},
		"negative latency":  {Latency: -1},
		"negative times":    {Times: -1},
		"half a second":     {ExpiresIn: time.Second / 2},
		"refused and life":  {Status: 500, ExpiresIn: time.Second},
		"two lines":         {Status: 429, RetryAfter: "1\r\nX: y"},
	} {
		if err := f.entra.SetFault("", fault); err == nil {
			t.Errorf("SetFault(%s) succeeded", name)
		}
	}
}

func TestFaultReplies(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *entratest.Config) { c.RefreshIn = 30 * time.Minute })
	for _, tt := range []struct {
		name   string
		fault  entratest.Fault
		status int
		header [2]string
		body   string // must be in it
		code   int    // of a refusal
	}{
		{name: "status 500", fault: entratest.Fault{Status: 500}, status: 500, body: "<HTML>"},
		{name: "status 429", fault: entratest.Fault{Status: 429, RetryAfter: "60"}, status: 429, header: [2]string{"Retry-After", "60"}, code: 90055},
		{name: "status 503", fault: entratest.Fault{Status: 503}, status: 503, code: 90033},
		{name: "status 504", fault: entratest.Fault{Status: 504}, status: 504, code: 90024},
		{name: "code with status", fault: entratest.Fault{AADSTS: 700213, Status: 418}, status: 418, body: "AADSTS700213"},
		{name: "garbage", fault: entratest.Fault{Garbage: true}, status: 200, body: "<html>"},
		{name: "redirect", fault: entratest.Fault{Redirect: "https://evil.example/"}, status: 307, header: [2]string{"Location", "https://evil.example/"}},
		{name: "latency", fault: entratest.Fault{Latency: time.Millisecond}, status: 200, body: "access_token"},
		{name: "expires_in", fault: entratest.Fault{ExpiresIn: time.Minute}, status: 200, body: `"expires_in":60`},
		{name: "refresh_in", fault: entratest.Fault{RefreshIn: time.Minute}, status: 200, body: `"refresh_in":60`},
		{name: "no fault", status: 200, body: `"refresh_in":1800`},
	} {
		if err := f.entra.SetFault("", tt.fault); err != nil {
			t.Fatal(err)
		}
		r := f.try(t, nil)
		if r.status != tt.status || !strings.Contains(string(r.body), tt.body) {
			t.Errorf("%s: status %d, body %s; want %d, %q", tt.name, r.status, r.body, tt.status, tt.body)
		}
		if got := r.header.Get(tt.header[0]); tt.header[0] != "" && got != tt.header[1] {
			t.Errorf("%s: %s = %q, want %q", tt.name, tt.header[0], got, tt.header[1])
		}
		if tt.code != 0 {
			checkRefusal(t, r, tt.code)
		}
	}
}

func TestFaultOmits(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *entratest.Config) { c.RefreshIn = 30 * time.Minute })
	if err := f.entra.SetFault("", entratest.Fault{OmitExpiresIn: true, OmitRefreshIn: true}); err != nil {
		t.Fatal(err)
	}
	r := f.try(t, nil)
	if granted(t, r); strings.Contains(string(r.body), "_in") {
		t.Errorf("body = %s, want no expires_in, no refresh_in", r.body)
	}
}

func TestFaultEchoAssertion(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	if err := f.entra.SetFault("", entratest.Fault{EchoAssertion: true}); err != nil {
		t.Fatal(err)
	}
	assertion := newAttempt(f).sign()
	body := checkRefusal(t, f.try(t, func(a *attempt) { a.assertion = func(string) string { return assertion } }), 50027)
	if !strings.Contains(body.Description, assertion) {
		t.Errorf("error_description = %q, want the assertion in it", body.Description)
	}
}

func TestFaultsOfTheConnection(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]entratest.Fault{
		"hang": {Hang: true}, "slow": {Latency: time.Minute}, "reset": {Reset: true}, "truncate": {Truncate: true}, "huge": {Huge: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, nil)
			if err := f.entra.SetFault("*", fault); err != nil {
				t.Fatal(err)
			}
			waits := fault.Hang || fault.Latency > 0 || fault.Huge
			patience := time.Minute
			if waits {
				patience = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			resp, err := f.client.Do(newAttempt(f).request(f.entra.URL()).WithContext(ctx))
			var n int64
			if err == nil {
				n, err = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
			if err == nil || errors.Is(err, context.DeadlineExceeded) != waits {
				t.Errorf("error = %v, want one; by the deadline: %t", err, waits)
			}
			if fault.Truncate && (!errors.Is(err, io.ErrUnexpectedEOF) || n == 0) {
				t.Errorf("error = %v after %d bytes, want an unexpected EOF", err, n)
			}
			if fault.Huge && n == 0 {
				t.Errorf("the endless body had %d bytes", n)
			}
		})
	}
}

func TestFaultScopesAndTimes(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	slash := vault + "//.default"
	for scope, fault := range map[string]entratest.Fault{
		vaultScope:               {AADSTS: 90033, Times: 2},
		"":                       {AADSTS: 90006},
		entratest.DiscoveryScope: {AADSTS: 90012, Times: 1},
	} {
		if err := f.entra.SetFault(scope, fault); err != nil {
			t.Fatal(err)
		}
	}
	checkRefusal(t, f.try(t, nil), 90033)
	if d := cmp.Diff(map[string]entratest.Fault{
		vaultScope: {AADSTS: 90033, Times: 1}, "*": {AADSTS: 90006}, entratest.DiscoveryScope: {AADSTS: 90012, Times: 1},
	}, f.entra.Faults()); d != "" {
		t.Errorf("Faults() (-want +got):\n%s", d)
	}
	checkRefusal(t, f.try(t, form("scope", slash)), 90006)
	checkRefusal(t, f.try(t, nil), 90033)
	checkRefusal(t, f.try(t, nil), 90006) // its own fault is used up
	req, err := http.NewRequest(http.MethodGet, f.entra.URL()+"/"+tenantID+"/v2.0/.well-known/openid-configuration", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("client-request-id", requestID)
	checkRefusal(t, f.do(t, req), 90012)
	if r := f.do(t, req); r.status != http.StatusOK {
		t.Errorf("discovery after its fault: status %d", r.status)
	}
	f.entra.ClearFaults()
	granted(t, f.try(t, nil))
}

func TestFaultJSON(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{`{"latency":250}`, `{"latency":"soon"}`, `{"nope":1}`, `[]`, `{"hang":"yes"}`} {
		var f entratest.Fault
		if err := json.Unmarshal([]byte(bad), &f); err == nil {
			t.Errorf("Unmarshal(%s) = %+v, want an error", bad, f)
		}
	}
	full := entratest.Fault{
		Latency: 250 * time.Millisecond, Hang: true, Reset: true, Garbage: true, Truncate: true, Huge: true, Redirect: "https://x",
		EchoAssertion: true, AADSTS: 70021, Status: 429, RetryAfter: "60", ExpiresIn: -time.Minute, RefreshIn: time.Second,
		OmitExpiresIn: true, OmitRefreshIn: true, Times: 3,
	}
	for _, want := range []entratest.Fault{{}, full} {
		b, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got entratest.Fault
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("Unmarshal(%s): %v", b, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("round trip of %s (-want +got):\n%s", b, d)
		}
	}
}
