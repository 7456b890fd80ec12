package imds_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/imds"
	"github.com/svidecar/svidecar/internal/secret"
)

var issued = time.Unix(1795399508, 0)

func token() imds.Token {
	return imds.Token{Value: secret.New("a.b-c_d"), ClientID: clientID, NotBefore: issued, ExpiresOn: issued.Add(3900 * time.Second)}
}

func TestWriteTokenBytes(t *testing.T) {
	for _, tt := range []struct {
		name string
		sel  imds.Selector
		left time.Duration
		want string
	}{
		{"no selector", imds.Selector{}, 3599900 * time.Millisecond,
			`{"access_token":"a.b-c_d","client_id":"` + clientID + `","expires_in":"3599","expires_on":"1795403408","ext_expires_in":"3599","not_before":"1795399508","resource":"https://vault.azure.net","token_type":"Bearer"}`},
		{"client id as asked", imds.Selector{Kind: imds.ByClientID, Name: "client_id", Value: strings.ToUpper("abc")}, time.Second,
			`{"access_token":"a.b-c_d","client_id":"ABC","expires_in":"1","expires_on":"1795403408","ext_expires_in":"1","not_before":"1795399508","resource":"https://vault.azure.net","token_type":"Bearer"}`},
		{"object id", imds.Selector{Kind: imds.ByObjectID, Name: "object_id", Value: "o"}, time.Second,
			`{"access_token":"a.b-c_d","client_id":"` + clientID + `","expires_in":"1","expires_on":"1795403408","ext_expires_in":"1","not_before":"1795399508","object_id":"o","resource":"https://vault.azure.net","token_type":"Bearer"}`},
		{"msi_res_id", imds.Selector{Kind: imds.ByResourceID, Name: "msi_res_id", Value: "/r"}, time.Second,
			`{"access_token":"a.b-c_d","client_id":"` + clientID + `","expires_in":"1","expires_on":"1795403408","ext_expires_in":"1","not_before":"1795399508","msi_res_id":"/r","resource":"https://vault.azure.net","token_type":"Bearer"}`},
		{"mi_res_id", imds.Selector{Kind: imds.ByResourceID, Name: "mi_res_id", Value: "/r"}, time.Second,
			`{"access_token":"a.b-c_d","client_id":"` + clientID + `","expires_in":"1","expires_on":"1795403408","ext_expires_in":"1","not_before":"1795399508","mi_res_id":"/r","resource":"https://vault.azure.net","token_type":"Bearer"}`},
		{"never negative", imds.Selector{}, -time.Hour,
			`{"access_token":"a.b-c_d","client_id":"` + clientID + `","expires_in":"0","expires_on":"1795403408","ext_expires_in":"0","not_before":"1795399508","resource":"https://vault.azure.net","token_type":"Bearer"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, tok := httptest.NewRecorder(), token()
			req := imds.Request{Protocol: imds.IMDS, Resource: vault, Selector: tt.sel}
			if err := imds.WriteToken(w, req, tok, tok.ExpiresOn.Add(-tt.left)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, w.Body.String()); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
			want := map[string]string{"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store", "Content-Encoding": ""}
			for name, value := range want {
				if got := w.Header().Get(name); got != value {
					t.Errorf("%s = %q, want %q", name, got, value)
				}
			}
		})
	}
}

// TestWriteTokenEscapesNothing proves the claim that what the parser accepts
// needs no escaping: every accepted character comes back through a JSON parser.
func TestWriteTokenEscapesNothing(t *testing.T) {
	const odd = "https://a.b:1/c-d_e~f!g$h'i(j)k*l+m,n=o@p?q%r[s]t&u;v#w"
	req, err := imds.ParseRequest(imds.IMDS, "resource=https%3A%2F%2Fa.b%3A1%2Fc-d_e~f%21g%24h%27i%28j%29k%2Al%2Bm%2Cn%3Do%40p%3Fq%25r%5Bs%5Dt%26u%3Bv%23w")
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	if err := imds.WriteToken(w, req, token(), issued); err != nil {
		t.Fatal(err)
	}
	var fields map[string]string // every value a string
	if err := json.Unmarshal(w.Body.Bytes(), &fields); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	if fields["resource"] != odd {
		t.Errorf("resource = %q, want %q", fields["resource"], odd)
	}
}

func TestWriteRefusal(t *testing.T) {
	const id = "00000000-0000-4000-8000-000000000000"
	for _, tt := range []struct {
		outcome imds.Outcome
		status  int
		code    string
	}{
		{imds.InvalidRequest, 400, "invalid_request"},
		{imds.IdentityNotFound, 400, "invalid_request"},
		{imds.InvalidResource, 400, "invalid_resource"},
		{imds.UnauthorizedClient, 400, "unauthorized_client"},
		{imds.NoAssertion, 400, "invalid_request"},
		{imds.Unauthorized, 401, "unauthorized_client"},
		{imds.AccessDenied, 403, "access_denied"},
		{imds.NotFound, 404, "not_found"},
		{imds.MethodNotAllowed, 405, "method_not_allowed"},
		{imds.Throttled, 429, "too_many_requests"},
		{imds.Unavailable, 503, "service_unavailable"},
		{imds.Internal, 500, "server_error"},
	} {
		t.Run(tt.outcome.String(), func(t *testing.T) {
			w := httptest.NewRecorder()
			refusal := &imds.Refusal{Outcome: tt.outcome, Description: "what\r\nand \"why\" ExceptionMessage"}
			if err := imds.WriteRefusal(w, refusal, id); err != nil {
				t.Fatal(err)
			}
			var got map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			const text = `what and "why" Exception-Message`
			want := map[string]any{"error": tt.code, "error_description": text, "statusCode": float64(tt.status), "message": text, "correlationId": id}
			if diff := cmp.Diff(want, got); diff != "" || w.Code != tt.status {
				t.Errorf("status %d, body (-want +got):\n%s", w.Code, diff)
			}
			if got := w.Header().Get("Retry-After") != ""; got != (tt.status == 429 || tt.status == 503) {
				t.Errorf("Retry-After is there: %v", got)
			}
		})
	}
}

func TestWriteRefusalMetadataMissing(t *testing.T) {
	w := httptest.NewRecorder()
	if err := imds.WriteRefusal(w, &imds.Refusal{Outcome: imds.MetadataMissing, Description: "x"}, "id"); err != nil {
		t.Fatal(err)
	}
	const want = `{"error":"invalid_request","error_description":"Required metadata header not specified"}`
	if w.Code != 400 || w.Body.String() != want {
		t.Errorf("got %d %s, want 400 %s", w.Code, w.Body, want)
	}
}

func TestWriteRefusalBoundsRetryAfter(t *testing.T) {
	for after, want := range map[time.Duration]string{0: "1", time.Millisecond: "1", 1500 * time.Millisecond: "2", 20 * time.Second: "20", time.Hour: "20", -time.Second: "1"} {
		w := httptest.NewRecorder()
		if err := imds.WriteRefusal(w, &imds.Refusal{Outcome: imds.Throttled, Description: "x", RetryAfter: after}, ""); err != nil {
			t.Fatal(err)
		}
		if got := w.Header().Get("Retry-After"); got != want {
			t.Errorf("RetryAfter %v is sent as %q, want %q", after, got, want)
		}
	}
}

func TestEveryOutcomeHasItsForm(t *testing.T) {
	labels := map[string]bool{}
	for _, o := range imds.Outcomes() {
		if o.Status() == 0 || o.String() == "" || labels[o.String()] {
			t.Errorf("outcome %d: status %d, label %q", o, o.Status(), o)
		}
		labels[o.String()] = true
	}
}

func TestRefusalIsBoundedAndNeverEmpty(t *testing.T) {
	for _, description := range []string{"", " \n", strings.Repeat("ä", 5000)} {
		w := httptest.NewRecorder()
		if err := imds.WriteRefusal(w, &imds.Refusal{Outcome: imds.InvalidRequest, Description: description}, ""); err != nil {
			t.Fatal(err)
		}
		var got struct{ Message string }
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Message == "" || len(got.Message) > 1510 {
			t.Errorf("message of %d bytes, %v", len(got.Message), err)
		}
	}
}
