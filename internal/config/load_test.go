package config_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/svidecar/svidecar/internal/config"
	"github.com/svidecar/svidecar/internal/secret"
)

func TestLoadTakesWhatTheWebhookInjects(t *testing.T) {
	want := config.Default()
	want.TenantID, want.ClientID, want.FederatedTokenFile = tenant, client, "/token"
	want.Sources = []config.Source{{Name: "default", Kind: "file", Path: "/token", Audience: "api://AzureADTokenExchange"}}
	if diff := cmp.Diff(want, mustLoad(t, nil, webhook), compare); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}
}

func TestDefault(t *testing.T) {
	want := &config.Config{
		Listen: "127.0.0.1:8000", OpsListen: "127.0.0.1:8001", LogLevel: slog.LevelInfo, LogFormat: "json",
		Protocols: []string{"imds", "appservice"}, ServiceFabricListen: "127.0.0.1:2377",
		ArcListen: "127.0.0.1:40342", ArcTokensDir: "/var/opt/azcmagent/tokens",
		InstanceMetadataHost: "169.254.169.254", MetadataHeaderRequired: true,
		Cloud: "public", AuthorityHost: "https://login.microsoftonline.com/", Audience: "api://AzureADTokenExchange",
		Source: config.KindFile, AssertionLifetime: 5 * time.Minute, ExecTimeout: 10 * time.Second,
		ExchangeTimeout: 10 * time.Second, CacheEntries: 4096, MaxRequests: 2048, MaxConnections: 4096, ShutdownDelay: time.Second,
	}
	if diff := cmp.Diff(want, config.Default(), compare); diff != "" {
		t.Errorf("Default (-want +got):\n%s", diff)
	}
	if flags := config.Default().Flags(); flags != nil {
		t.Errorf("Default().Flags() = %q, want none", flags)
	}
}

func TestLoadExample(t *testing.T) {
	c := mustLoad(t, []string{"--config=testdata/example.yaml"}, nil)
	want := &config.Config{
		ConfigFile: "testdata/example.yaml",
		Listen:     "127.0.0.1:8000", OpsListen: "0.0.0.0:8001", LogLevel: slog.LevelDebug, LogFormat: "text",
		AllowedHosts: []string{"sidecar.internal", "sidecar.internal:8000"},

		Protocols:           []string{"imds", "appservice", "servicefabric", "arc"},
		ServiceFabricListen: "[::1]:2377", ServiceFabricThumbprintFile: "/run/svidecar/thumbprint", ServiceFabricCertificateFile: "/run/svidecar/servicefabric.pem",
		ArcListen: "127.0.0.1:40343", ArcTokensDir: "/var/opt/azcmagent/tokens",
		InstanceMetadataPaths: []string{"instance/compute"}, InstanceMetadataHost: "169.254.169.254:80",
		MetadataHeaderRequired: true, NMIMetrics: true,

		RequireAPIVersion: true,
		IdentityHeader:    secret.New("example-header-that-guards-nothing"), IdentityHeaderFile: "testdata/identity-header",
		Cloud: "usgov", AuthorityHost: "https://login.microsoftonline.us/", AuthorityCAFile: "testdata/ca.pem", Region: "usgovvirginia",
		TenantID: tenant, ClientID: client,
		Source: "local", Issuer: "https://issuer.example.com", Subject: "spiffe://example.com/ns/prod/sa/default",
		KeyFile: "/etc/svidecar/key.pem", AssertionLifetime: 10 * time.Minute, Audience: "api://AzureADTokenExchangeUSGov", ExecTimeout: 10 * time.Second,
		ExchangeTimeout: 15 * time.Second, CacheEntries: 1024, MaxRequests: 500, MaxConnections: 1000,
		Prefetch: []string{"https://vault.azure.net", "orders=https://storage.azure.com"}, ReadyRequiresToken: true, ShutdownDelay: 5 * time.Second,
		Identities: []config.Identity{
			{
				Name: "orders", ClientID: client, TenantID: tenant2, ObjectID: client2,
				ResourceID: "/subscriptions/cccccccc-cccc-cccc-cccc-cccccccccccc/resourcegroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders",
				Default:    true, AllowedResources: []string{"https://vault.azure.net", "https://storage.azure.com"}, Source: "projected",
			},
			{Name: "dddddddd-dddd-dddd-dddd-dddddddddddd", ClientID: "dddddddd-dddd-dddd-dddd-dddddddddddd", TenantID: tenant, Source: "default"},
		},
		Sources: []config.Source{
			{Name: "projected", Kind: "file", Path: "/var/run/secrets/azure/tokens/azure-identity-token", Audience: "api://AzureADTokenExchangeUSGov"},
			{
				Name: "own", Kind: "local", Issuer: "https://issuer.example.com", Subject: "spiffe://example.com/ns/prod/sa/orders",
				KeyFile: "/etc/svidecar/orders.pem", Lifetime: 3 * time.Minute, Audience: "api://AzureADTokenExchangeUSGov",
			},
			{
				Name: "rotated", Kind: "local", Subject: "spiffe://example.com/ns/prod/sa/billing", KeyDir: "/var/lib/svidecar/keys",
				Lifetime: 5 * time.Minute, RotateEvery: 90 * 24 * time.Hour, Audience: "api://AzureADTokenExchangeUSGov",
			},
			{
				Name: "spire", Kind: "spiffe", Socket: "unix:///run/spire/agent/public/api.sock", Subject: "spiffe://example.com/ns/prod/sa/reports",
				Verify: true, Audience: "api://AzureADTokenExchangeUSGov",
			},
			{
				Name: "spire-internal", Kind: "spiffe", Socket: "unix:///run/spire/agent/public/api.sock",
				Hint: "internal", Audience: "api://AzureADTokenExchangeUSGov",
			},
			{Name: "job", Kind: "github", Audience: "api://AzureADTokenExchangeUSGov"},
			{Name: "machine", Kind: "google", MetadataHost: "metadata.google.internal", Audience: "api://AzureADTokenExchangeUSGov"},
			{
				Name: "helper", Kind: "exec", Command: []string{"/usr/local/bin/get-token", "--quiet", "a, b"},
				Timeout: 20 * time.Second, Audience: "api://AzureADTokenExchangeUSGov",
			},
			{
				Name: "vault", Kind: "url", URL: "https://vault.example.com/v1/identity/oidc/token/svidecar", BearerFile: "/run/vault/token",
				Field: "data.token", CAFile: "testdata/ca.pem", Audience: "api://AzureADTokenExchangeUSGov",
			},
			{
				Name: "default", Kind: "local", Issuer: "https://issuer.example.com", Subject: "spiffe://example.com/ns/prod/sa/default",
				KeyFile: "/etc/svidecar/key.pem", Lifetime: 10 * time.Minute, Audience: "api://AzureADTokenExchangeUSGov",
			},
		},
	}
	if diff := cmp.Diff(want, c, compare); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}
}

func TestExampleCoversEveryKey(t *testing.T) {
	data, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{"identities", "sources"}
	for _, name := range settingNames() {
		if name != "config" {
			keys = append(keys, name)
		}
	}
	for _, key := range keys {
		if !regexp.MustCompile(`(?m)^#?` + key + `:`).Match(data) {
			t.Errorf("testdata/example.yaml says nothing of %s", key)
		}
	}
	for _, key := range []string{
		"name", "client-id", "tenant-id", "object-id", "resource-id", "default", "allowed-resources", "source",
		"kind", "path", "issuer", "subject", "key-file", "lifetime", "audience", "socket", "hint", "verify",
		"key-dir", "rotate-every", "unsafe-unpublished-key",
		"metadata-host", "command", "timeout", "url", "bearer-file", "field", "ca-file",
	} {
		if !regexp.MustCompile(`(?m)^ +(- )?` + key + `:`).Match(data) {
			t.Errorf("testdata/example.yaml says nothing of %s in a list", key)
		}
	}
}

func settingNames() []string {
	var names []string
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	fs.SortFlags = false
	config.Register(fs)
	fs.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

func TestLoadAccepts(t *testing.T) {
	type row struct {
		name      string
		args, env []string
		change    func(*config.Config)
	}
	inDir(t, map[string]string{"header": " " + header + "\r\n", "empty.yaml": "# nothing yet\n", "null.yaml": "\ufeff---\n"})
	for _, tt := range []row{
		{"localhost", []string{"--listen=LocalHost:08000"}, nil, func(c *config.Config) { c.Listen = "localhost:8000" }},
		{"IPv6 loopback", []string{"--listen=[::1]:8000"}, nil, func(c *config.Config) { c.Listen = "[::1]:8000" }},
		{"the whole of 127/8", []string{"--listen=127.9.9.9:8000"}, nil, func(c *config.Config) { c.Listen = "127.9.9.9:8000" }},
		{"mapped IPv4 loopback", []string{"--listen=[::ffff:127.0.0.1]:8000"}, nil, func(c *config.Config) { c.Listen = "[::ffff:127.0.0.1]:8000" }},
		{"listen anywhere if told so", []string{"--listen=:8000", "--unsafe-listen"}, nil, func(c *config.Config) { c.Listen, c.UnsafeListen = ":8000", true }},
		{"any port twice", []string{"--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0"}, nil,
			func(c *config.Config) { c.Listen, c.OpsListen = "127.0.0.1:0", "127.0.0.1:0" }},
		{"one port on two hosts", []string{"--ops-listen=10.0.0.1:8000"}, nil, func(c *config.Config) { c.OpsListen = "10.0.0.1:8000" }},
		{"hosts in every form", []string{"--allowed-hosts=A.example,b.example:1,[::1]", "--allowed-hosts=[::1]:2,10.0.0.1"}, nil,
			func(c *config.Config) {
				c.AllowedHosts = []string{"a.example", "b.example:1", "[::1]", "[::1]:2", "10.0.0.1"}
			}},
		{"header from a file", []string{"--identity-header-file=header"}, nil,
			func(c *config.Config) { c.IdentityHeaderFile, c.IdentityHeader = "header", secret.New(header) }},
		{"header from the environment", nil, []string{"SVIDECAR_IDENTITY_HEADER=" + header},
			func(c *config.Config) { c.IdentityHeader = secret.New(header) }},
		{"cloud by authority", nil, []string{"AZURE_AUTHORITY_HOST=https://LOGIN.partner.microsoftonline.cn:443"}, func(c *config.Config) {
			c.Cloud, c.AuthorityHost, c.Audience = "china", "https://login.partner.microsoftonline.cn:443/", "api://AzureADTokenExchangeChina"
		}},
		{"cloud by older authority", []string{"--authority-host=https://login.windows.net/"}, nil, func(c *config.Config) { c.AuthorityHost = "https://login.windows.net/" }},
		{"authority by cloud", []string{"--cloud=usgov"}, nil, func(c *config.Config) {
			c.Cloud, c.AuthorityHost, c.Audience = "usgov", "https://login.microsoftonline.us/", "api://AzureADTokenExchangeUSGov"
		}},
		{"private authority of a cloud", []string{"--cloud=usgov", "--authority-host=https://127.0.0.1:8443"}, nil, func(c *config.Config) {
			c.Cloud, c.AuthorityHost, c.Audience = "usgov", "https://127.0.0.1:8443/", "api://AzureADTokenExchangeUSGov"
		}},
		{"own audience", []string{"--audience=api://own"}, nil, func(c *config.Config) { c.Audience, c.Sources[0].Audience = "api://own", "api://own" }},
		{"region", []string{"--region=WestEurope"}, nil, func(c *config.Config) { c.Region = "westeurope" }},
		{"tenant by domain", []string{"--tenant-id=Contoso.OnMicrosoft.com"}, nil, func(c *config.Config) { c.TenantID = "contoso.onmicrosoft.com" }},
		{"GUIDs in capitals", []string{"--client-id=" + strings.ToUpper(client)}, nil, func(c *config.Config) { c.ClientID = client }},
		{"invalid ambient value that is outranked", []string{"--client-id=" + client}, []string{"AZURE_CLIENT_ID=none"}, func(c *config.Config) { c.ClientID = client }},
		{"empty variables", nil, []string{"SVIDECAR_LISTEN=", "SVIDECAR_LISTN=", "AZURE_CLIENT_ID="}, func(*config.Config) {}},
		{"first of repeated variables", nil, []string{"SVIDECAR_REGION=a", "SVIDECAR_REGION=b"}, func(c *config.Config) { c.Region = "a" }},
		{"what Kubernetes injects for Services", nil, []string{
			"SVIDECAR_SERVICE_HOST=10.0.0.1", "SVIDECAR_SERVICE_PORT=80", "SVIDECAR_SERVICE_PORT_OPS=80", "SVIDECAR_PORT=tcp://10.0.0.1:80",
			"SVIDECAR_PORT_80_TCP=tcp://10.0.0.1:80", "SVIDECAR_PORT_80_TCP_ADDR=10.0.0.1",
			"SVIDECAR_WEBHOOK_SERVICE_HOST=10.0.0.2", "SVIDECAR_WEBHOOK_PORT_443_TCP_PROTO=tcp",
		}, func(*config.Config) {}},
		{"empty file", []string{"--config=empty.yaml"}, nil, func(c *config.Config) { c.ConfigFile = "empty.yaml" }},
		{"empty document", []string{"--config=null.yaml"}, nil, func(c *config.Config) { c.ConfigFile = "null.yaml" }},
		{"no delay", []string{"--shutdown-delay=0s"}, nil, func(c *config.Config) { c.ShutdownDelay = 0 }},
		{"local source over the webhook's variable", []string{"--source=local", "--issuer=https://issuer.example/a", "--subject=s", "--key-file=k"}, nil,
			func(c *config.Config) {
				c.Source, c.FederatedTokenFile, c.Issuer, c.Subject, c.KeyFile = "local", "", "https://issuer.example/a", "s", "k"
				c.Sources = []config.Source{{
					Name: "default", Kind: "local", Issuer: "https://issuer.example/a", Subject: "s", KeyFile: "k",
					Lifetime: 5 * time.Minute, Audience: "api://AzureADTokenExchange",
				}}
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := mustLoad(t, nil, minimal)
			tt.change(want)
			for i := range want.Sources {
				if !strings.HasPrefix(want.Sources[i].Audience, "api://own") {
					want.Sources[i].Audience = want.Audience
				}
			}
			if diff := cmp.Diff(want, mustLoad(t, tt.args, with(minimal, tt.env...)), compare); diff != "" {
				t.Errorf("Load (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadFillsInIdentities(t *testing.T) {
	identity := func(name, id, tenant, source string, isDefault bool) config.Identity {
		return config.Identity{Name: name, ClientID: id, TenantID: tenant, Source: source, Default: isDefault}
	}
	const sources = "sources:\n- {name: a, kind: file, path: /a}\n"
	for _, tt := range []struct {
		name, yaml string
		env        []string
		want       []config.Identity
	}{
		{"only one is the default", "identities:\n- client-id: " + client, minimal,
			[]config.Identity{identity(client, client, tenant, "default", true)}},
		{"none of several is the default", "identities:\n- client-id: " + client + "\n- client-id: " + client2, minimal,
			[]config.Identity{identity(client, client, tenant, "default", false), identity(client2, client2, tenant, "default", false)}},
		{"client-id chooses the default", "identities:\n- client-id: " + client2 + "\n- client-id: " + client, webhook,
			[]config.Identity{identity(client2, client2, tenant, "default", false), identity(client, client, tenant, "default", true)}},
		{"client-id chooses by tenant", "identities:\n- {name: a, client-id: " + client + ", tenant-id: " + tenant2 + "}\n- {name: b, client-id: " + client + "}", webhook,
			[]config.Identity{identity("a", client, tenant2, "default", false), identity("b", client, tenant, "default", true)}},
		{"the mark chooses among those of client-id", "identities:\n- {name: a, client-id: " + client + ", tenant-id: " + tenant2 + ", default: true}\n- {name: b, client-id: " + client + "}", webhook,
			[]config.Identity{identity("a", client, tenant2, "default", true), identity("b", client, tenant, "default", false)}},
		{"only source", sources + "identities:\n- {name: a, client-id: " + client + ", tenant-id: " + tenant2 + "}", nil,
			[]config.Identity{identity("a", client, tenant2, "a", true)}},
		{"default source before a listed one", sources + "identities:\n- {name: a, client-id: " + client + "}", minimal,
			[]config.Identity{identity("a", client, tenant, "default", true)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inDir(t, map[string]string{"svidecar.yaml": tt.yaml})
			c := mustLoad(t, []string{"--config=svidecar.yaml"}, tt.env)
			if diff := cmp.Diff(tt.want, c.Identities); diff != "" {
				t.Errorf("Identities (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDefaultSource(t *testing.T) {
	for _, tt := range []struct {
		name  string
		names []string
		want  string
	}{
		{"none", nil, ""},
		{"several", []string{"a", "b"}, ""},
		{"only one", []string{"a"}, "a"},
		{"default", []string{"a", "default"}, "default"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &config.Config{}
			for _, name := range tt.names {
				c.Sources = append(c.Sources, config.Source{Name: name})
			}
			if got := c.DefaultSource(); got != tt.want {
				t.Errorf("DefaultSource() = %q, want %q", got, tt.want)
			}
		})
	}
}

// TestCommandLineOnly: such a flag has no variable, and one that is set is told of.
func TestCommandLineOnly(t *testing.T) {
	fs := pflag.NewFlagSet("x", pflag.ContinueOnError)
	dry := fs.Bool("dry-run", false, "print")
	config.CommandLineOnly(fs, "dry-run")
	config.Register(fs, "ops-listen")
	if usage := fs.Lookup("dry-run").Usage; usage != "print (command line only)" {
		t.Errorf("usage = %q, want it to say that there is no variable", usage)
	}
	_, err := config.LoadPart(fs, []string{"SVIDECAR_DRY_RUN=true"})
	if *dry || err == nil || !strings.Contains(err.Error(), `unknown variable "SVIDECAR_DRY_RUN"`) {
		t.Errorf("dry-run = %v, error %v; want an unknown variable", *dry, err)
	}
	if err := fs.Parse([]string{"--dry-run"}); err != nil || !*dry {
		t.Errorf("dry-run = %v, %v; want it set by the command line", *dry, err)
	}
}

// TestCommandFlagsHaveVariables: a flag that belongs to one command and is no
// setting is set from its variable, which no other command knows.
func TestCommandFlagsHaveVariables(t *testing.T) {
	load := func(environ []string, args ...string) (time.Duration, error) {
		fs := pflag.NewFlagSet("x", pflag.ContinueOnError)
		timeout := fs.Duration("timeout", time.Second, "how long")
		config.Register(fs, "ops-listen")
		if usage := fs.Lookup("timeout").Usage; usage != "how long (env SVIDECAR_TIMEOUT)" {
			t.Errorf("usage = %q, want the variable in it", usage)
		}
		if fs.Lookup("listen") != nil {
			t.Error("--listen is registered, which was not named")
		}
		if err := fs.Parse(args); err != nil {
			t.Fatal(err)
		}
		_, err := config.LoadPart(fs, environ)
		return *timeout, err
	}
	for _, tt := range []struct {
		name    string
		environ []string
		args    []string
		want    time.Duration
		says    string
	}{
		{"default", nil, nil, time.Second, ""},
		{"variable", []string{"SVIDECAR_TIMEOUT=5s"}, nil, 5 * time.Second, ""},
		{"flag outranks variable", []string{"SVIDECAR_TIMEOUT=5s"}, []string{"--timeout=7s"}, 7 * time.Second, ""},
		{"bad variable", []string{"SVIDECAR_TIMEOUT=soon"}, nil, 0, `timeout (from env SVIDECAR_TIMEOUT): "soon" is not a duration`},
		{"another command's variable", []string{"SVIDECAR_RESOURCE=x"}, nil, time.Second, ""},
		{"no command's variable", []string{"SVIDECAR_RESOURCES=x"}, nil, time.Second, `unknown variable "SVIDECAR_RESOURCES"; did you mean "SVIDECAR_RESOURCE"?`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := load(tt.environ, tt.args...)
			if got != tt.want || (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("timeout = %v, error %v; want %v, %q", got, err, tt.want, tt.says)
			}
		})
	}
}

func TestLoadPart(t *testing.T) {
	if _, err := config.LoadPart(nil, nil); err != nil {
		t.Errorf("without any setting: %v", err)
	}
	for _, environ := range [][]string{{"SVIDECAR_LISTEN=0.0.0.0:80"}, {"SVIDECAR_LISTN=x"}, {"SVIDECAR_TENANT_ID=common"}} {
		if c, err := config.LoadPart(nil, environ); err == nil {
			t.Errorf("LoadPart(%q) = %v, want an error", environ, c)
		}
	}
}

// TestListOutranksTheWebhook: AZURE_CLIENT_ID is in every pod of the webhook's
// service accounts; an identity list does not have to agree with it.
func TestListOutranksTheWebhook(t *testing.T) {
	const other = "99999999-9999-4999-8999-999999999999"
	entry := func(id, more string) string { return "- client-id: " + id + "\n" + more }
	for _, tt := range []struct {
		name, yaml, ambient string
		want                string // the default identity
	}{
		{"another than the list", "identities:\n" + entry(client, "  default: true\n") + entry(client2, ""), other, client},
		{"another than the marked one", "identities:\n" + entry(client, "  default: true\n") + entry(client2, ""), client2, client},
		{"the marked one", "identities:\n" + entry(client, "  default: true\n") + entry(client2, ""), client, client},
		{"one of the list, none marked", "identities:\n" + entry(client, "") + entry(client2, ""), client2, client2},
		{"another than the list, none marked", "identities:\n" + entry(client, "") + entry(client2, ""), other, ""},
		{"another than the only one", "identities:\n" + entry(client, ""), other, client},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "svidecar.yaml")
			if err := os.WriteFile(path, []byte(tt.yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			c := mustLoad(t, []string{"--config=" + path}, []string{"AZURE_CLIENT_ID=" + tt.ambient, "AZURE_TENANT_ID=" + tenant, "AZURE_FEDERATED_TOKEN_FILE=/token"})
			got := ""
			for _, id := range c.Identities {
				if id.Default {
					got = id.ClientID
				}
			}
			if got != tt.want {
				t.Errorf("the default is %q, want %q", got, tt.want)
			}
		})
	}
}

// TestSPIFFESocketOfTheEnvironment is used if it is asked for, and else nobody's
// mistake: the variable is set for all programs of a pod or a machine.
func TestSPIFFESocketOfTheEnvironment(t *testing.T) {
	environ := append(slices.Clone(webhook), "SPIFFE_ENDPOINT_SOCKET=unix:///run/agent.sock")
	c := mustLoad(t, nil, environ)
	if len(c.Sources) != 1 || c.Sources[0].Kind != "file" || c.SPIFFESocket != "" {
		t.Errorf("a file source with the variable set: %+v", c.Sources)
	}
	c = mustLoad(t, []string{"--source=spiffe", "--subject=spiffe://example.com/a"}, environ)
	want := []config.Source{{Name: "default", Kind: "spiffe", Socket: "unix:///run/agent.sock", Subject: "spiffe://example.com/a", Audience: "api://AzureADTokenExchange"}}
	if diff := cmp.Diff(want, c.Sources); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
}
