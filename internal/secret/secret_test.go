package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/internal/secret"
)

const bearer = "eyJ-the-bytes-nobody-may-see"

type holder struct {
	Exported   secret.Value
	unexported secret.Value
	nested     *holder
}

func TestValueIsNeverPrinted(t *testing.T) {
	v := secret.New(bearer)
	h := holder{Exported: v, unexported: v, nested: &holder{unexported: v}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%T"} {
		for name, subject := range map[string]any{"value": v, "pointer": &v, "struct": h, "slice": []secret.Value{v}, "nested": h.nested} {
			out := fmt.Sprintf(verb, subject)
			if strings.Contains(out, bearer) || strings.Contains(out, fmt.Sprintf("%x", bearer)) {
				t.Errorf("Sprintf(%q, %s) leaks the value: %s", verb, name, out)
			}
		}
	}
}

func TestValueIsNeverMarshalled(t *testing.T) {
	v := secret.New(bearer)
	out, err := json.Marshal(map[string]any{"v": v, "p": &v, "h": holder{Exported: v, unexported: v}})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), bearer) || !strings.Contains(string(out), secret.Redacted) {
		t.Errorf("json.Marshal = %s, want only %q", out, secret.Redacted)
	}
}

func TestValueIsNeverLogged(t *testing.T) {
	v := secret.New(bearer)
	var out bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("m", "v", v, "p", &v, "h", holder{unexported: v}, slog.Group("g", "v", v))
	}
	if strings.Contains(out.String(), bearer) {
		t.Errorf("the log leaks the value: %s", out.String())
	}
}

func TestEqual(t *testing.T) {
	for _, tt := range []struct {
		name, held, given string
		want              bool
	}{
		{"empty never matches empty", "", "", false},
		{"empty never matches a value", "", "x", false},
		{"prefix", "secret", "secre", false},
		{"longer", "secret", "secretx", false},
		{"case", "secret", "Secret", false},
		{"same", "secret", "secret", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := secret.New(tt.held).Equal(tt.given); got != tt.want {
				t.Errorf("New(%q).Equal(%q) = %v, want %v", tt.held, tt.given, got, tt.want)
			}
		})
	}
}

func TestRevealAndZero(t *testing.T) {
	if v := secret.New(bearer); v.Reveal() != bearer || v.IsZero() {
		t.Errorf("New(%q) reveals %q, zero %v", bearer, v.Reveal(), v.IsZero())
	}
	if v := secret.New(""); v.Reveal() != "" || !v.IsZero() {
		t.Errorf("New(\"\") reveals %q, zero %v", v.Reveal(), v.IsZero())
	}
}
