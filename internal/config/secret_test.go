package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/svidecar/svidecar/internal/config"
)

// bad is a secret that is refused for its space, in the forms it may come in.
const bad = header + " and-more"

func TestErrorsNeverShowTheSecret(t *testing.T) {
	for _, tt := range []struct {
		name, yaml string
		args, env  []string
	}{
		{name: "flag", args: []string{"--identity-header=" + bad}},
		{name: "repeated flag", args: []string{"--identity-header=" + header, "--identity-header=" + header}},
		{name: "variable", env: []string{"SVIDECAR_IDENTITY_HEADER=" + bad}},
		{name: "misspelt variable", env: []string{"SVIDECAR_IDENTITY_HEADR=" + header}},
		{name: "file", yaml: "identity-header: " + bad},
		{name: "misspelt key", yaml: "identity-headr: " + header},
		{name: "list", yaml: "identity-header: [" + header + "]"},
		{name: "mapping", yaml: "identity-header: {" + header + ": x}"},
		{name: "no colon", yaml: "identity-header " + header},
		{name: "no space", yaml: "{identity-header:" + header + "}"},
		{name: "key", yaml: header + ": x"},
		{name: "list at the top", yaml: "- " + header},
		{name: "tag", yaml: "identity-header: !" + header},
		{name: "unknown tag handle", yaml: "identity-header: !a!" + header + " x"},
		{name: "alias", yaml: "identity-header: *" + header},
		{name: "anchor", yaml: "identity-header: &" + header},
		{name: "directive", yaml: "%" + header + " x\n---\n"},
		{name: "unclosed quote", yaml: "identity-header: '" + header},
		{name: "escape", yaml: `identity-header: "\q` + header + `"`},
		{name: "second colon", yaml: "identity-header: " + header + ": x"},
		{name: "control character", yaml: "identity-header: " + header + "\x00"},
		{name: "number", yaml: "identity-header: 5363723374248656"},
		{name: "second document", yaml: "identity-header: " + header + "\n---\n"},
		{name: "contradiction", yaml: "identity-header: " + header + "\nidentity-header-file: /f\n"},
		{name: "another setting", yaml: "identity-header: " + header + "\nlisten: 0.0.0.0:1\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inDir(t, map[string]string{"svidecar.yaml": tt.yaml})
			_, err := load(t, with(tt.args, "--config=svidecar.yaml"), with(minimal, tt.env...))
			if err == nil {
				t.Fatal("Load gave no error")
			}
			for _, piece := range []string{"s3cr3t", "nobody-may-see", "and-more", "53637233742"} {
				if strings.Contains(err.Error(), piece) {
					t.Errorf("the error shows %q: %v", piece, err)
				}
			}
		})
	}
}

func TestSecretIsNeverShown(t *testing.T) {
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	config.Register(fs)
	if err := fs.Parse([]string{"--identity-header=" + header}); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(fs, minimal)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "[redacted]") {
		t.Errorf("Print does not say that identity-header is set:\n%s", &out)
	}
	if err := json.NewEncoder(&out).Encode(c); err != nil {
		t.Fatal(err)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "config", c)
	fmt.Fprintf(&out, "%v %+v %#v %q %s %s", c, *c, *c, c.Flags(), fs.FlagUsages(), fs.Lookup("identity-header").Value)
	if strings.Contains(out.String(), header) {
		t.Errorf("something shows the secret:\n%s", &out)
	}
}

func TestPrintOfConfigMadeByHand(t *testing.T) {
	c := config.Default()
	c.Subject = "two words"
	if value, from := shown(t, c, "listen"); value != "127.0.0.1:8000" || from != "the program" {
		t.Errorf("Print shows listen as %q from %q", value, from)
	}
	var out bytes.Buffer
	if err := c.Print(&out); err != nil || !strings.Contains(out.String(), `"two words"`) {
		t.Errorf("Print = %v and does not quote:\n%s", err, &out)
	}
}
