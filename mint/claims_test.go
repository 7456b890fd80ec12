package mint_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/mint"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestParseRefuses(t *testing.T) {
	good := forge(t, goodHeader, payload(noon, noon.Add(time.Hour)))
	parts := strings.Split(good, ".")
	header, body, signature := parts[0], parts[1], parts[2]
	for _, tt := range []struct{ name, raw string }{
		{"empty", ""},
		{"blank", "   "},
		{"one part", header},
		{"two parts", header + "." + body},
		{"four parts", good + "." + signature},
		{"five parts, as JWE", good + "." + signature + "." + signature},
		{"no signature", header + "." + body + "."},
		{"no payload", header + ".." + signature},
		{"no header", "." + body + "." + signature},
		{"space before", " " + good},
		{"newline after", good + "\n"},
		{"newline inside", header + ".\n" + body + "." + signature},
		{"byte order mark", "\ufeff" + good},
		{"padding", header + "." + body + "=." + signature},
		{"standard base64", header + "." + body + "." + "+/" + signature[2:]},
		{"NUL", good[:20] + "\x00" + good[20:]},
		{"invalid UTF-8", good[:20] + "\xff" + good[20:]},
		{"impossible base64 length", header + "." + body + "." + signature[:5]},
		{"JSON serialization", `{"payload":"` + body + `","protected":"` + header + `","signature":"` + signature + `"}`},
		{"quoted", `"` + good + `"`},
		{"bearer", "Bearer " + good},
		{"too long", header + "." + strings.Repeat("A", 16<<10) + "." + signature},
		{"one byte too long", good + strings.Repeat("A", 16<<10-len(good)+1)},
		{"header is no JSON", forge(t, `RS256`, payload(noon, noon))},
		{"header is an array", forge(t, `["RS256"]`, payload(noon, noon))},
		{"header is null", forge(t, `null`, payload(noon, noon))},
		{"header without alg", forge(t, `{"kid":"k1"}`, payload(noon, noon))},
		{"header twice alg", forge(t, `{"alg":"RS256","alg":"none"}`, payload(noon, noon))},
		{"alg none", forge(t, `{"alg":"none"}`, payload(noon, noon))},
		{"alg HS256", forge(t, `{"alg":"HS256","kid":"k1"}`, payload(noon, noon))},
		{"alg EdDSA", forge(t, `{"alg":"EdDSA","kid":"k1"}`, payload(noon, noon))},
		{"alg of another case", forge(t, `{"alg":"rs256"}`, payload(noon, noon))},
		{"alg number", forge(t, `{"alg":256}`, payload(noon, noon))},
		{"typ number", forge(t, `{"alg":"RS256","typ":1}`, payload(noon, noon))},
		{"kid number", forge(t, `{"alg":"RS256","kid":1}`, payload(noon, noon))},
		{"payload is no JSON", forge(t, goodHeader, `hello`)},
		{"payload is empty", forge(t, goodHeader, ` `)},
		{"payload is null", forge(t, goodHeader, `null`)},
		{"payload is an array", forge(t, goodHeader, `[]`)},
		{"payload is a string", forge(t, goodHeader, `"x"`)},
		{"payload twice iss", forge(t, goodHeader, `{"iss":"a","iss":"b"}`)},
		{"payload and more", forge(t, goodHeader, `{"iss":"a"}{}`)},
		{"iss number", forge(t, goodHeader, `{"iss":1}`)},
		{"aud number", forge(t, goodHeader, `{"aud":1}`)},
		{"aud null", forge(t, goodHeader, `{"aud":null}`)},
		{"aud of numbers", forge(t, goodHeader, `{"aud":[1]}`)},
		{"exp string", forge(t, goodHeader, `{"exp":"1"}`)},
		{"exp negative", forge(t, goodHeader, `{"exp":-1}`)},
		{"exp after the year 9999", forge(t, goodHeader, `{"exp":253402300800}`)},
		{"exp overflows", forge(t, goodHeader, `{"exp":1e400}`)},
		{"nbf negative", forge(t, goodHeader, `{"nbf":-1}`)},
		{"iat in milliseconds", forge(t, goodHeader, `{"iat":1772366400000}`)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := mint.Parse(tt.raw)
			if !errors.Is(err, mint.ErrMalformed) {
				t.Fatalf("Parse(%q) = %v, %v; want ErrMalformed", tt.raw, got, err)
			}
			if diff := cmp.Diff(mint.Claims{}, got); diff != "" {
				t.Errorf("claims beside an error: %s", diff)
			}
			checkNoLeak(t, err, tt.raw)
			checkOneLine(t, err)
		})
	}
}

func TestParse(t *testing.T) {
	full := mint.Claims{
		Issuer: issuer, Subject: subject, Audience: []string{audience},
		IssuedAt: noon, NotBefore: noon, Expiry: noon.Add(time.Hour),
		KeyID: "k1", Algorithm: "RS256", Type: "JWT",
	}
	for _, tt := range []struct {
		name, header, payload string
		want                  mint.Claims
	}{
		{"service-account token", goodHeader, payload(noon, noon.Add(time.Hour)), full},
		{"nothing in it", `{"alg":"ES256"}`, `{}`, mint.Claims{Algorithm: "ES256"}},
		{"one audience", `{"alg":"PS512","typ":"JOSE"}`, `{"aud":"a"}`, mint.Claims{Algorithm: "PS512", Type: "JOSE", Audience: []string{"a"}}},
		{"fraction of a second", `{"alg":"RS384"}`, `{"exp":1.9}`, mint.Claims{Algorithm: "RS384", Expiry: time.Unix(1, 0).UTC()}},
		{"the epoch is a date", `{"alg":"RS384"}`, `{"exp":0}`, mint.Claims{Algorithm: "RS384", Expiry: time.Unix(0, 0).UTC()}},
		{"last date", `{"alg":"RS384"}`, `{"exp":253402300799}`, mint.Claims{Algorithm: "RS384", Expiry: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}},
		{"claims of other case are other claims", `{"alg":"RS256"}`, `{"ISS":"a"}`, mint.Claims{Algorithm: "RS256"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := mint.Parse(forge(t, tt.header, tt.payload))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestParseTakesTheLongest(t *testing.T) {
	const max = 16 << 10
	raw := forge(t, goodHeader, `{}`)
	pad := (max - len(raw)) * 3 / 4
	raw = forge(t, goodHeader, `{}`+strings.Repeat(" ", pad))
	if len(raw) < max-4 || len(raw) > max {
		t.Fatalf("the test made %d bytes", len(raw))
	}
	if _, err := mint.Parse(raw); err != nil {
		t.Errorf("Parse of %d bytes: %v", len(raw), err)
	}
}

func TestClaimsString(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		claims     mint.Claims
	}{
		{"zero", `iss "", sub "", aud [], exp none`, mint.Claims{}},
		{
			"full", `iss "https://a", sub "s", aud ["x" "y"], exp 2026-03-01T12:00:00Z, kid "k", alg RS256`,
			mint.Claims{Issuer: "https://a", Subject: "s", Audience: []string{"x", "y"}, Expiry: noon, KeyID: "k", Algorithm: "RS256", Type: "JWT"},
		},
		{"control characters", `iss "a\nb\x1b[0m", sub "", aud [], exp none`, mint.Claims{Issuer: "a\nb\x1b[0m"}},
		{"many audiences", `iss "", sub "", aud ["1" "2" "3" and 2 more], exp none`, mint.Claims{Audience: strings.Split("12345", "")}},
		{"600 characters are shown", `iss "` + strings.Repeat("a", 600) + `", sub "", aud [], exp none`, mint.Claims{Issuer: strings.Repeat("a", 600)}},
		{"601 are not", `iss "` + strings.Repeat("a", 600) + `"… (601 bytes), sub "", aud [], exp none`, mint.Claims{Issuer: strings.Repeat("a", 601)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.claims.String(); got != tt.want {
				t.Errorf("String() = %s\nwant       %s", got, tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	good := forge(f, goodHeader, payload(noon, noon.Add(time.Hour)))
	for _, seed := range []string{
		"", ".", "..", "a.b.c", good, good + "\n", good[:len(good)/2],
		forge(f, `{"alg":"ES256","typ":"JOSE","crit":["b64"],"b64":false}`, `{"aud":["a","b"]}`),
		forge(f, `{"alg":"RS256","jwk":{"kty":"RSA"}}`, `{"exp":1e18}`),
		forge(f, `{"alg":"RS256","x5c":["AAAA"]}`, `{"nbf":-0.5}`),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		claims, err := mint.Parse(raw)
		if err == nil {
			if len(raw) > 16<<10 || strings.Count(raw, ".") != 2 || strings.ContainsAny(raw, " \r\n=") {
				t.Errorf("Parse(%q) = %v", raw, claims)
			}
			if line := claims.String(); strings.ContainsAny(line, "\r\n") {
				t.Errorf("String() = %q, want one line", line)
			}
			return
		}
		if !errors.Is(err, mint.ErrMalformed) {
			t.Errorf("Parse(%q): %v, want ErrMalformed", raw, err)
		}
		// A fuzzer may find words of the messages; a token has longer ones.
		if len(raw) > 40 && strings.Contains(err.Error(), raw) {
			t.Errorf("the error shows the token: %v", err)
		}
	})
}
