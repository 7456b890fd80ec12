package config_test

import (
	"bytes"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"

	"github.com/svidecar/svidecar/internal/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// samples gives each setting a value that is not its default, as a flag takes
// it and as YAML writes it, and what else it needs to be valid.
var samples = map[string]struct {
	value, yaml string
	needs       []string
}{
	"config":                 {value: "testdata/empty.yaml"},
	"listen":                 {value: "127.0.0.1:9000"},
	"unsafe-listen":          {value: "true", yaml: "true"},
	"ops-listen":             {value: ":9001", yaml: "':9001'"},
	"log-level":              {value: "warn"},
	"log-format":             {value: "text"},
	"allowed-hosts":          {value: "a.example,b.example:1", yaml: "[a.example, 'b.example:1']"},
	"require-api-version":    {value: "true", yaml: "true"},
	"identity-header":        {value: header},
	"identity-header-file":   {value: "testdata/identity-header"},
	"cloud":                  {value: "china"},
	"authority-host":         {value: "https://login.example/"},
	"authority-ca-file":      {value: "testdata/ca.pem"},
	"region":                 {value: "westeurope"},
	"tenant-id":              {value: tenant2},
	"client-id":              {value: client2},
	"source":                 {value: "local", needs: local},
	"federated-token-file":   {value: "/other"},
	"issuer":                 {value: "https://other.example", needs: local},
	"subject":                {value: "other", needs: local},
	"key-file":               {value: "other", needs: local},
	"key-dir":                {value: "other", needs: []string{"--source=local", "--subject=s"}},
	"rotate-every":           {value: "720h", needs: rotated},
	"unsafe-unpublished-key": {value: "true", yaml: "true", needs: rotated},
	"assertion-lifetime":     {value: "6m", needs: local},
	"spiffe-socket":          {value: "unix:///run/agent.sock", needs: []string{"--source=spiffe"}},
	"spiffe-hint":            {value: "internal", needs: []string{"--source=spiffe", "--spiffe-socket=unix:///run/agent.sock"}},
	"spiffe-verify":          {value: "true", yaml: "true", needs: []string{"--source=spiffe", "--spiffe-socket=unix:///run/agent.sock"}},
	"google-metadata-host":   {value: "127.0.0.1:8080", needs: []string{"--source=google"}},
	"exec-command":           {value: `["/usr/bin/x","a,b","a,b",""]`, needs: []string{"--source=exec"}},
	"exec-timeout":           {value: "20s", needs: []string{"--source=exec", "--exec-command=/usr/bin/x"}},
	"source-url":             {value: "https://token.example/?a={{audience}}", yaml: "'https://token.example/?a={{audience}}'", needs: []string{"--source=url"}},
	"source-url-bearer-file": {value: "/bearer", needs: byURL},
	"source-url-field":       {value: "data.token", needs: byURL},
	"source-url-ca-file":     {value: "testdata/ca.pem", needs: byURL},
	"audience":               {value: "api://other"},
	"exchange-timeout":       {value: "11s"},
	"cache-entries":          {value: "7", yaml: "7"},
	"max-requests":           {value: "7", yaml: "7"},
	"max-connections":        {value: "7", yaml: "7"},
	"prefetch":               {value: "https://vault.azure.net,https://storage.azure.com", yaml: "[https://vault.azure.net, https://storage.azure.com]"},
	"ready-requires-token":   {value: "true", yaml: "true", needs: []string{"--prefetch=https://vault.azure.net"}},
	"shutdown-delay":         {value: "1m30s"},

	"protocols":                      {value: "imds,cloudshell", yaml: "[imds, cloudshell]"},
	"servicefabric-listen":           {value: "127.0.0.1:7"},
	"servicefabric-thumbprint-file":  {value: "/run/svidecar/thumbprint"},
	"servicefabric-certificate-file": {value: "/run/svidecar/fabric.pem"},
	"arc-listen":                     {value: "127.0.0.1:7"},
	"arc-tokens-dir":                 {value: "/run/svidecar/arc"},
	"instance-metadata-file":         {value: "instance.json"},
	"instance-metadata-paths":        {value: "instance/compute,scheduledevents", yaml: "[instance/compute, scheduledevents]"},
	"instance-metadata-host":         {value: "10.0.0.1:8080"},
	"block-instance-metadata":        {value: "true", yaml: "true"},
	"metadata-header-required":       {value: "true", yaml: "true"},
	"nmi-metrics":                    {value: "true", yaml: "true"},
}

var local = []string{"--source=local", "--issuer=https://issuer.example", "--subject=s", "--key-file=k"}

var rotated = []string{"--source=local", "--subject=s", "--key-dir=d"}
var byURL = []string{"--source=url", "--source-url=https://token.example/"}

// needed leaves out of the needs the setting itself.
func needed(name string) []string {
	var args []string
	for _, arg := range samples[name].needs {
		if !strings.HasPrefix(arg, "--"+name+"=") {
			args = append(args, arg)
		}
	}
	return args
}

func envName(setting string) string {
	return "SVIDECAR_" + strings.ToUpper(strings.ReplaceAll(setting, "-", "_"))
}

func writeYAML(t *testing.T, name, value string) (arg string) {
	t.Helper()
	if y := samples[name].yaml; y != "" {
		value = y
	}
	path := t.TempDir() + "/svidecar.yaml"
	if err := os.WriteFile(path, []byte(name+": "+value+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return "--config=" + path
}

// shown gives the value and the origin of a setting that Print shows.
func shown(t *testing.T, c *config.Config, name string) (value, from string) {
	t.Helper()
	var out bytes.Buffer
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if fields := strings.Fields(line); fields[0] == name {
			return fields[1], strings.Join(fields[2:], " ")
		}
	}
	t.Fatalf("Print shows no %s:\n%s", name, &out)
	return "", ""
}

func TestEverySettingIsReachableFromEveryPlace(t *testing.T) {
	for _, name := range settingNames() {
		sample, ok := samples[name]
		if !ok {
			t.Errorf("no sample value for %s", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			byFlag := mustLoad(t, with(needed(name), "--"+name+"="+sample.value), minimal)
			byEnv := mustLoad(t, needed(name), with(minimal, envName(name)+"="+sample.value))
			if diff := cmp.Diff(byFlag, byEnv, compare); diff != "" {
				t.Errorf("by flag and by variable differ (-flag +variable):\n%s", diff)
			}
			without := sample.needs
			if slices.Contains([]string{"source", "spiffe-socket", "key-dir", "exec-command", "source-url"}, name) { // the kind is refused without it
				without = nil
			}
			if diff := cmp.Diff(byFlag, mustLoad(t, without, minimal), compare); diff == "" && name != "metadata-header-required" { // which knows but one value
				t.Errorf("--%s=%s changes nothing", name, sample.value)
			}
			if _, from := shown(t, byFlag, name); from != "flag --"+name {
				t.Errorf("Print says the flag's value is from %q", from)
			}
			if _, from := shown(t, byEnv, name); from != "env "+envName(name) {
				t.Errorf("Print says the variable's value is from %q", from)
			}
			if name == "config" {
				return
			}
			arg := writeYAML(t, name, sample.value)
			byFile := mustLoad(t, with(needed(name), arg), minimal)
			if diff := cmp.Diff(byFlag, byFile, compare, cmpopts.IgnoreFields(config.Config{}, "ConfigFile")); diff != "" {
				t.Errorf("by flag and by file differ (-flag +file):\n%s", diff)
			}
			if _, from := shown(t, byFile, name); from != "file "+strings.TrimPrefix(arg, "--config=")+":1" {
				t.Errorf("Print says the file's value is from %q", from)
			}
		})
	}
}

func TestPrecedence(t *testing.T) {
	inDir(t, map[string]string{"svidecar.yaml": "tenant-id: file.example\n"})
	flag, own, file, ambient := "--tenant-id=flag.example", "SVIDECAR_TENANT_ID=env.example", "--config=svidecar.yaml", "AZURE_TENANT_ID=ambient.example"
	for _, tt := range []struct {
		name      string
		args, env []string
		value     string
		from      string
	}{
		{"flag over all", []string{file, flag}, []string{own, ambient}, "flag.example", "flag --tenant-id"},
		{"own variable over file", []string{file}, []string{own, ambient}, "env.example", "env SVIDECAR_TENANT_ID"},
		{"file over ambient variable", []string{file}, []string{ambient}, "file.example", "file svidecar.yaml:1"},
		{"ambient variable", nil, []string{ambient}, "ambient.example", "env AZURE_TENANT_ID"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := mustLoad(t, tt.args, with(tt.env, "AZURE_FEDERATED_TOKEN_FILE=/token"))
			if value, from := shown(t, c, "tenant-id"); c.TenantID != tt.value || value != tt.value || from != tt.from {
				t.Errorf("TenantID = %q, shown as %q from %q, want %q from %q", c.TenantID, value, from, tt.value, tt.from)
			}
		})
	}
}

func TestFlagOverVariableForTheFileItself(t *testing.T) {
	inDir(t, map[string]string{"a.yaml": "region: a\n", "b.yaml": "region: b\n"})
	c := mustLoad(t, []string{"--config=b.yaml"}, with(minimal, "SVIDECAR_CONFIG=a.yaml"))
	if c.Region != "b" || c.ConfigFile != "b.yaml" {
		t.Errorf("Region = %q from %q, want %q from %q", c.Region, c.ConfigFile, "b", "b.yaml")
	}
}

func TestPrintGolden(t *testing.T) {
	for _, tt := range []struct {
		golden    string
		args, env []string
	}{
		{"testdata/print-webhook.golden", []string{"--listen=127.0.0.1:9000"},
			with(webhook, "SVIDECAR_IDENTITY_HEADER="+header, "SVIDECAR_AUTHORITY_HOST=https://login.microsoftonline.us")},
		{"testdata/print-example.golden", []string{"--config=testdata/example.yaml"}, webhook[:1]},
		{"testdata/print-local.golden", local, webhook},
		{"testdata/print-exec.golden", []string{"--source=exec", `--exec-command=["/usr/bin/x", "a b", "<&>"]`}, with(webhook, "GCE_METADATA_HOST=127.0.0.1")},
	} {
		t.Run(tt.golden, func(t *testing.T) {
			var out bytes.Buffer
			if err := mustLoad(t, tt.args, tt.env).Print(&out); err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(tt.golden, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(tt.golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.ReplaceAll(string(want), "\r\n", "\n"), out.String()); diff != "" {
				t.Errorf("Print (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFlagsRoundTrip(t *testing.T) {
	cases := map[string]*config.Config{
		"webhook":           mustLoad(t, nil, webhook),
		"example":           mustLoad(t, []string{"--config=testdata/example.yaml"}, nil),
		"example overruled": mustLoad(t, []string{"--config=testdata/example.yaml", "--log-level=info", "--cache-entries=4096"}, []string{"SVIDECAR_REGION=a"}),
	}
	for _, name := range settingNames() {
		if name != "identity-header" {
			cases[name] = mustLoad(t, with(needed(name), "--"+name+"="+samples[name].value), webhook[:3])
		}
	}
	for name, want := range cases {
		t.Run(name, func(t *testing.T) {
			flags := want.Flags()
			if diff := cmp.Diff(want, mustLoad(t, flags, nil), compare); diff != "" {
				t.Errorf("after %q (-want +got):\n%s", flags, diff)
			}
		})
	}
}

func TestFlagsSaysOnlyWhatIsNeeded(t *testing.T) {
	c := mustLoad(t, []string{"--listen=127.0.0.1:8000", "--cloud=usgov", "--unsafe-listen", "--shutdown-delay=0s"},
		with(webhook[:3], "SVIDECAR_ALLOWED_HOSTS=a,b", "SVIDECAR_IDENTITY_HEADER="+header))
	want := []string{
		"--unsafe-listen=true", "--allowed-hosts=a,b", "--cloud=usgov",
		"--tenant-id=" + tenant, "--client-id=" + client, "--federated-token-file=/token", "--shutdown-delay=0s",
	}
	if diff := cmp.Diff(want, c.Flags()); diff != "" {
		t.Errorf("Flags() (-want +got):\n%s", diff)
	}
}

func TestUsageNamesEveryVariable(t *testing.T) {
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	config.Register(fs)
	usage := fs.FlagUsages()
	for _, name := range settingNames() {
		if !strings.Contains(usage, "(env "+envName(name)) {
			t.Errorf("the usage of --%s does not name %s", name, envName(name))
		}
	}
	for _, name := range []string{"AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST"} {
		if !strings.Contains(usage, ", "+name+")") {
			t.Errorf("no usage names %s", name)
		}
	}
	if want := "(env SVIDECAR_LISTEN) (default \"127.0.0.1:8000\")"; !strings.Contains(usage, want) {
		t.Errorf("the usage does not say %q:\n%s", want, usage)
	}
}
