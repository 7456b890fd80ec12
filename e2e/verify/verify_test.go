//go:build e2e && linux

package verify_test

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/svidecar/svidecar/mint"
)

// allowSkip lets a machine without Python, Node.js, OpenSSL or a package registry
// pass. Without it, what is missing fails: nobody reads skips.
const allowSkip = "SVIDECAR_E2E_ALLOW_SKIP"

const (
	issuer   = "https://issuer.example.org/cluster"
	subject  = "spiffe://example.org/ns/shop/sa/cart"
	audience = "api://AzureADTokenExchange"
)

// missing ends the test for want of something that is not ours.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	text := fmt.Sprintf(format, args...)
	if os.Getenv(allowSkip) != "" {
		t.Skip(text)
	}
	t.Fatalf("%s; set %s to do without", text, allowSkip)
}

// run gives a program the input and returns its standard output.
func run(t *testing.T, dir string, input []byte, program string, args ...string) ([]byte, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir, cmd.Stdin, cmd.WaitDelay = dir, bytes.NewReader(input), time.Second
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%v: %w\n%s", cmd, err, said.Bytes())
	}
	return out, nil
}

// verdict is what a verifier says of a case.
type verdict struct {
	Refusal string
	Claims  map[string]any
}

// question is a case as a verifier gets it.
type question struct {
	Token    string          `json:"token"`
	Keys     json.RawMessage `json:"keys"`
	Issuer   string          `json:"issuer"`
	Audience string          `json:"audience"`
	Subject  string          `json:"subject"`

	name  string
	valid bool
}

func TestPyJWT(t *testing.T) {
	dir := t.TempDir()
	python := filepath.Join(dir, "bin", "python")
	lock, err := filepath.Abs("testdata/python/requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range [][]string{
		{"python3", "-m", "venv", dir},
		{python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", lock},
	} {
		if _, err := run(t, dir, nil, step[0], step[1:]...); err != nil {
			missing(t, "PyJWT cannot be had: %v", err)
		}
	}
	script, err := filepath.Abs("testdata/python/verify.py")
	if err != nil {
		t.Fatal(err)
	}
	judge(t, func(input []byte) ([]byte, error) { return run(t, dir, input, python, "-I", script) })
}

func TestJose(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/node")); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, dir, nil, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", filepath.Join(dir, "cache")); err != nil {
		missing(t, "jose cannot be had: %v", err)
	}
	judge(t, func(input []byte) ([]byte, error) { return run(t, dir, input, "node", "verify.mjs") })
}

// judge puts all questions to a verifier, and compares.
func judge(t *testing.T, verify func([]byte) ([]byte, error)) {
	t.Helper()
	all, want := questions(t)
	input, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	out, err := verify(input)
	if err != nil {
		t.Fatal(err)
	}
	var verdicts []verdict
	if err := json.Unmarshal(out, &verdicts); err != nil || len(verdicts) != len(all) {
		t.Fatalf("%d verdicts of %d, error %v", len(verdicts), len(all), err)
	}
	for i, q := range all {
		v := verdicts[i]
		switch {
		case q.valid != (v.Refusal == "") || q.valid != (v.Claims != nil):
			t.Errorf("%s: refused with %q, want valid %v", q.name, v.Refusal, q.valid)
		case q.valid && (v.Claims["sub"] != subject || v.Claims["iss"] != issuer || v.Claims["aud"] != audience):
			t.Errorf("%s: it reads %v, want %v", q.name, v.Claims, want)
		case q.Token == all[0].Token && q.valid && (v.Claims["exp"] != float64(want.Expiry.Unix()) || v.Claims["iat"] != float64(want.IssuedAt.Unix())):
			t.Errorf("%s: it lives from %v to %v, want %v", q.name, v.Claims["iat"], v.Claims["exp"], want)
		}
	}
}

// questions are a token of ours, alone and among keys, and what must not pass.
func questions(t *testing.T) ([]question, mint.Claims) {
	t.Helper()
	key, other := newKey(t), newKey(t)
	local, err := mint.NewLocal(mint.LocalConfig{Signer: key, Issuer: issuer, Subject: subject, Audience: audience})
	if err != nil {
		t.Fatal(err)
	}
	made, err := local.Assertion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	token, keys := made.Value.Reveal(), documents(t, key.Public())
	good := question{Token: token, Keys: keys, Issuer: issuer, Audience: audience, Subject: subject, name: "ours", valid: true}
	with := func(name string, change func(*question)) question {
		q := good
		q.name, q.valid = name, false
		change(&q)
		return q
	}
	parts := strings.Split(token, ".")
	header := func(alg string) string {
		return encode(fmt.Appendf(nil, `{"alg":%q,"kid":%q,"typ":"JWT"}`, alg, made.Claims.KeyID))
	}
	payload := func(issued time.Time) string {
		return encode(fmt.Appendf(nil, `{"iss":%q,"sub":%q,"aud":%q,"iat":%d,"nbf":%d,"exp":%d,"jti":"x"}`,
			issuer, subject, audience, issued.Unix(), issued.Unix(), issued.Add(5*time.Minute).Unix()))
	}
	now := time.Now()
	among := with("ours among two keys", func(q *question) { q.Keys = documents(t, other.Public(), key.Public()) })
	byHand := with("by hand, as the forgeries are", func(q *question) { q.Token = rs256(t, key, header("RS256"), payload(now)) })
	among.valid = true
	all := []question{
		good, among,
		with("another audience", func(q *question) { q.Audience = "api://other" }),
		with("another issuer", func(q *question) { q.Issuer += "/" }),
		with("another subject", func(q *question) { q.Subject += "x" }),
		with("without its key", func(q *question) { q.Keys = documents(t, other.Public()) }),
		with("signed by another key", func(q *question) { q.Token = rs256(t, other, header("RS256"), payload(now)) }),
		with("expired", func(q *question) { q.Token = rs256(t, key, header("RS256"), payload(now.Add(-time.Hour))) }),
		with("of the future", func(q *question) { q.Token = rs256(t, key, header("RS256"), payload(now.Add(time.Hour))) }),
		with("another payload", func(q *question) { q.Token = parts[0] + "." + payload(now) + "." + parts[2] }),
		with("alg none", func(q *question) { q.Token = header("none") + "." + parts[1] + "." }),
		with("HS256 with the public key", func(q *question) { q.Token = hs256(t, key, header("HS256"), parts[1]) }),
	}
	byHand.valid = true // or the forgeries would be refused for the wrong reason
	return append(all, byHand), made.Claims
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := mint.GenerateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// documents is the key set that Entra would fetch.
func documents(t *testing.T, keys ...crypto.PublicKey) json.RawMessage {
	t.Helper()
	_, set, err := mint.Documents(issuer, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func rs256(t *testing.T, key crypto.Signer, header, payload string) string {
	t.Helper()
	digest := sha256.Sum256([]byte(header + "." + payload))
	signature, err := key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return header + "." + payload + "." + encode(signature)
}

// hs256 is the attack on verifiers that let the token choose its algorithm.
func hs256(t *testing.T, key crypto.Signer, header, payload string) string {
	t.Helper()
	mac := hmac.New(sha256.New, publicPEM(t, key))
	mac.Write([]byte(header + "." + payload))
	return header + "." + payload + "." + encode(mac.Sum(nil))
}

func publicPEM(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public().(*rsa.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// TestKeyIDByOpenSSL makes the kid from the private key without any of our code or
// Go's: as Kubernetes and azwi do, of the DER form of the public key.
func TestKeyIDByOpenSSL(t *testing.T) {
	for range 3 {
		key := newKey(t)
		file := filepath.Join(t.TempDir(), "key.pem")
		if err := mint.WriteKey(file, key); err != nil {
			t.Fatal(err)
		}
		if _, err := exec.LookPath("openssl"); err != nil {
			missing(t, "%v", err)
		}
		der, err := run(t, ".", nil, "openssl", "pkey", "-in", file, "-pubout", "-outform", "DER")
		if err != nil {
			t.Fatal(err)
		}
		digest, err := run(t, ".", der, "openssl", "dgst", "-sha256", "-binary")
		if err != nil {
			t.Fatal(err)
		}
		got, err := mint.KeyID(key.Public())
		if want := encode(digest); err != nil || got != want {
			t.Errorf("KeyID = %q, %v; OpenSSL makes it %q", got, err, want)
		}
	}
}
