package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/svidecar/svidecar/deploy/inject"
	"github.com/svidecar/svidecar/deploy/webhook"
)

// parsed gives what flags and variables make.
func parsed(args, environ []string) (*options, error) {
	var o options
	fs := pflag.NewFlagSet("svidecar-webhook", pflag.ContinueOnError)
	o.register(fs)
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	return &o, o.complete(fs, environ)
}

// needed are the flags without which nothing starts.
func needed(more ...string) []string {
	return append([]string{"--sidecar-image=svidecar:v1", "--namespace=system"}, more...)
}

func TestOptionsRefused(t *testing.T) {
	for _, tt := range []struct {
		name          string
		args, environ []string
		want          string
	}{
		{"no namespace", []string{"--sidecar-image=svidecar:v1"}, nil, "--namespace is required"},
		{"no image", []string{"--namespace=system"}, nil, `--sidecar-image ""`},
		{"unknown flag", needed("--imagee=x"), nil, "--imagee"},
		{"native sidecars", needed("--native-sidecars=yes"), nil, "auto, true or false"},
		{"mode", needed("--mode=iptables"), nil, `--mode "iptables"`},
		{"quantity", needed("--sidecar-cpu-request=ten"), nil, "ten"},
		{"tenant", needed("--tenant-id=not a tenant"), nil, "tenant"},
		{"authority host", needed("--authority-host=http://login.example"), nil, "--authority-host"},
		{"sidecar's level", needed("--sidecar-log-level=loud"), nil, "--sidecar-log-level"},
		{"ports", needed("--port=8001"), nil, "--port 8001 and --ops-port 8001"},
		{"resources", needed("--sidecar-memory-limit=1Mi"), nil, "--sidecar-memory-*: memory-request 32Mi is above memory-limit 1Mi"},
		{"level", needed("--log-level=loud"), nil, "loud"},
		{"unknown variable", needed(), []string{"SVIDECAR_ADMISSION_MOOD=good"}, "SVIDECAR_ADMISSION_MOOD is unknown"},
		{"variable that is no number", needed(), []string{"SVIDECAR_ADMISSION_PORT=tcp://10.0.0.1:443"}, "SVIDECAR_ADMISSION_PORT"},
	} {
		if _, err := parsed(tt.args, tt.environ); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		} else if strings.Contains(err.Error(), "Config") {
			t.Errorf("%s: %v names what is no flag", tt.name, err)
		}
	}
}

func TestOptions(t *testing.T) {
	o, err := parsed(needed("--port=9000", "--pod-identity=cluster"), []string{
		"SVIDECAR_ADMISSION_PORT=7000", "SVIDECAR_ADMISSION_OPS_PORT=7001", "SVIDECAR_WEBHOOK_PORT=tcp://10.0.0.1:443", "HOME=/",
	})
	if err != nil {
		t.Fatal(err)
	}
	in := o.webhook.Inject
	if in.Port != 9000 || in.OpsPort != 7001 || in.Mode != inject.ModeAuto || !o.webhook.DetectNative || o.webhook.PodIdentity != webhook.PodIdentityCluster {
		t.Errorf("options %+v", o)
	}
	for native, want := range map[string]bool{"true": true, "false": false} {
		o, err := parsed(needed("--native-sidecars="+native), nil)
		if err != nil || o.webhook.DetectNative || o.webhook.Inject.NativeSidecars != want {
			t.Errorf("--native-sidecars=%s: %+v, %v", native, o, err)
		}
	}
}

// TestDefaultsAreTheLibrary's: a flag's default that is shown is what deploy/inject
// takes where nothing is said, so that neither changes alone.
func TestDefaultsAreTheLibrarys(t *testing.T) {
	o, err := parsed(needed("--native-sidecars=true", "--tenant-id=22222222-2222-2222-2222-222222222222"), nil)
	if err != nil {
		t.Fatal(err)
	}
	bare := inject.Config{Image: "svidecar:v1", NativeSidecars: true, TenantID: "22222222-2222-2222-2222-222222222222"}
	for _, pod := range []string{
		`{"metadata":{"annotations":{"svidecar.io/inject":"true","svidecar.io/source":"spiffe"}},"spec":{"containers":[{"name":"app"}]}}`,
		`{"metadata":{"annotations":{"svidecar.io/inject":"true","svidecar.io/mode":"env"}},"spec":{"containers":[{"name":"app"}]}}`,
	} {
		var patches [][]byte
		for _, cfg := range []inject.Config{bare, o.webhook.Inject} {
			cfg.NewSecret = func() string { return "PODSECRETPODSECRET" }
			res, err := cfg.Mutate(inject.Input{Pod: []byte(pod), Namespace: "team"})
			if err != nil {
				t.Fatal(err)
			}
			patches = append(patches, res.Patch)
		}
		if !bytes.Equal(patches[0], patches[1]) {
			t.Errorf("without flags:\n%s\nwith the flags' defaults:\n%s", patches[0], patches[1])
		}
	}
}

func TestCommandsExplainThemselves(t *testing.T) {
	for _, cmd := range append(rootCommand().Commands(), rootCommand()) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") || !strings.HasSuffix(strings.TrimSpace(cmd.Long), ".") {
			t.Errorf("%s: Short %q, Long %q", cmd.Name(), cmd.Short, cmd.Long)
		}
	}
}

// TestPrintConfig holds that what is printed can be given back.
func TestPrintConfig(t *testing.T) {
	var once, twice bytes.Buffer
	args := needed("--mode=env", "--no-proxy=a,b", "--shutdown-delay=7s")
	for _, out := range []*bytes.Buffer{&once, &twice} {
		root := rootCommand()
		root.SetOut(out)
		root.SetArgs(append(args, "--print-config"))
		if err := root.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		args = strings.Split(strings.TrimSpace(out.String()), "\n")
	}
	if once.String() != twice.String() || !strings.Contains(once.String(), "--shutdown-delay=7s\n") {
		t.Errorf("printed\n%s\nthen\n%s", once.String(), twice.String())
	}
}
