package config

import (
	"log/slog"
	"strings"
	"time"

	"github.com/svidecar/svidecar/internal/secret"
)

// envPrefix begins the name of every environment variable that is ours.
const envPrefix = "SVIDECAR_"

// setting is one row of the table: a value of the Config that has a flag, an
// environment variable and a YAML key.
type setting struct {
	field[Config]
	def      string   // default as text; empty means none, or derived
	ambient  []string // variables of azure-workload-identity, outranked by all that is ours
	flagOnly bool     // has no YAML key
	usage    string
	derive   deriveFunc // makes the value when it is not given; nil means none
}

// deriveFunc makes a value from other settings and names the one it used. An
// empty value means that the default stays.
type deriveFunc func(c *Config) (value, from string)

// env is the name of the setting's own environment variable.
func (s setting) env() string { return envOf(s.name) }

// envOf is the name of the variable that stands for a flag.
func envOf(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

const (
	minLifetime     = time.Minute
	maxLifetime     = time.Hour
	defaultLifetime = 5 * time.Minute
	maxRotation     = 5 * 365 * 24 * time.Hour

	minExec     = time.Second
	maxExec     = time.Minute
	defaultExec = 10 * time.Second
)

// settings is the table. Its order is that of --help and of Print. The file to
// read comes first, and a derived setting after the ones it derives from.
var settings = []setting{
	{
		field: textField("config", func(c *Config) *string { return &c.ConfigFile }, parsePath), flagOnly: true,
		usage: "YAML `file` with settings, identities and sources",
	},
	{
		field: textField("listen", func(c *Config) *string { return &c.Listen }, parseAddress), def: "127.0.0.1:8000",
		usage: "`address` that hands out tokens; must be loopback",
	},
	{
		field: boolField("unsafe-listen", func(c *Config) *bool { return &c.UnsafeListen }), def: "false",
		usage: "let --listen be an address that other machines reach: they can then ask for tokens",
	},
	{
		field: textField("ops-listen", func(c *Config) *string { return &c.OpsListen }, parseAddress), def: "127.0.0.1:8001",
		usage: "`address` of health and metrics; any address, nothing there is secret",
	},
	{
		field: levelField("log-level", func(c *Config) *slog.Level { return &c.LogLevel }), def: "info",
		usage: "least `level` that is logged: debug, info, warn or error",
	},
	{
		field: textField("log-format", func(c *Config) *string { return &c.LogFormat }, oneOf("json", "text")), def: "json",
		usage: "`format` of the log: json or text",
	},
	{
		field: listField("allowed-hosts", func(c *Config) *[]string { return &c.AllowedHosts }, parseHost),
		usage: "further Host `values` that --listen accepts, separated by commas",
	},
	{
		field: boolField("require-api-version", func(c *Config) *bool { return &c.RequireAPIVersion }), def: "false",
		usage: "refuse requests on the IMDS path that lack api-version, as the real service does",
	},
	{
		field: listField("protocols", func(c *Config) *[]string { return &c.Protocols }, oneOf(protocolNames...)), def: "imds,appservice",
		usage: "`protocols` to serve, separated by commas: imds, appservice, azureml, cloudshell, servicefabric, arc",
	},
	{
		field: textField("servicefabric-listen", func(c *Config) *string { return &c.ServiceFabricListen }, parseAddress), def: "127.0.0.1:2377",
		usage: "loopback `address` of the HTTPS listener of the protocol servicefabric",
	},
	{
		field: textField("servicefabric-thumbprint-file", func(c *Config) *string { return &c.ServiceFabricThumbprintFile }, parsePath),
		usage: "`file` to write the SHA-1 thumbprint of that listener's certificate to, for IDENTITY_SERVER_THUMBPRINT",
	},
	{
		field: textField("servicefabric-certificate-file", func(c *Config) *string { return &c.ServiceFabricCertificateFile }, parsePath),
		usage: "PEM `file` to write that certificate to, for clients that verify it",
	},
	{
		field: textField("arc-listen", func(c *Config) *string { return &c.ArcListen }, parseAddress), def: "127.0.0.1:40342",
		usage: "loopback `address` of the listener of the protocol arc",
	},
	{
		field: textField("arc-tokens-dir", func(c *Config) *string { return &c.ArcTokensDir }, parseArcDir), def: "/var/opt/azcmagent/tokens",
		usage: "`directory` of the keys that prove a client of the protocol arc; SDKs take no other than the default",
	},
	{
		field: textField("instance-metadata-file", func(c *Config) *string { return &c.InstanceMetadataFile }, parsePath),
		usage: "JSON `file` to answer /metadata/instance from, read at the start",
	},
	{
		field: listField("instance-metadata-paths", func(c *Config) *[]string { return &c.InstanceMetadataPaths }, parseMetadataPath),
		usage: "`paths` below /metadata/ to pass on to --instance-metadata-host, separated by commas, such as instance/compute; never identity",
	},
	{
		field: textField("instance-metadata-host", func(c *Config) *string { return &c.InstanceMetadataHost }, parseHost), def: "169.254.169.254",
		usage: "`host` of the machine's own metadata service, for --instance-metadata-paths",
	},
	{
		field: boolField("block-instance-metadata", func(c *Config) *bool { return &c.BlockInstanceMetadata }), def: "false",
		usage: "as of aad-pod-identity: make sure that /metadata/instance is refused, as it is by default",
	},
	{
		field: boolField("metadata-header-required", func(c *Config) *bool { return &c.MetadataHeaderRequired }), def: "true",
		usage: "as of aad-pod-identity: the header Metadata is always required, so it cannot be false",
	},
	{
		field: boolField("nmi-metrics", func(c *Config) *bool { return &c.NMIMetrics }), def: "false",
		usage: "show the metric of aad-pod-identity's NMI too, for dashboards that look for it",
	},
	{
		field: headerField("identity-header", func(c *Config) *secret.Value { return &c.IdentityHeader }),
		usage: "shared `secret` of App Service clients (their IDENTITY_HEADER or MSI_SECRET); other users of this machine can read flags, so prefer --identity-header-file",
	},
	{
		field: textField("identity-header-file", func(c *Config) *string { return &c.IdentityHeaderFile }, parsePath),
		usage: "`file` that holds the shared secret of App Service clients",
	},
	{
		field: textField("cloud", func(c *Config) *string { return &c.Cloud }, oneOf(cloudNames()...)), def: "public", derive: cloudOfAuthority,
		usage: "Azure `cloud`: public, usgov or china; if not given, that of a well-known --authority-host",
	},
	{
		field: textField("authority-host", func(c *Config) *string { return &c.AuthorityHost }, parseAuthority), derive: authorityOfCloud,
		ambient: []string{"AZURE_AUTHORITY_HOST"},
		usage:   "https `URL` of Microsoft Entra ID; if not given, that of --cloud",
	},
	{
		field: textField("authority-ca-file", func(c *Config) *string { return &c.AuthorityCAFile }, parsePath),
		usage: "PEM `file` of certificate authorities to trust for --authority-host, beside the system's",
	},
	{
		field: textField("region", func(c *Config) *string { return &c.Region }, parseRegion),
		usage: "Azure `region` whose token endpoint to use, such as westeurope; if not given, the global one",
	},
	{
		field:   textField("tenant-id", func(c *Config) *string { return &c.TenantID }, parseTenant),
		ambient: []string{"AZURE_TENANT_ID"},
		usage:   "`tenant` of the identities: a GUID or a verified domain name",
	},
	{
		field:   textField("client-id", func(c *Config) *string { return &c.ClientID }, parseGUID),
		ambient: []string{"AZURE_CLIENT_ID"},
		usage:   "client `id` of the identity that answers requests which name none",
	},
	{
		field: textField("source", func(c *Config) *string { return &c.Source }, oneOf(kinds...)), def: KindFile,
		usage: "`kind` of source that assertions come from: file (--federated-token-file), local (--issuer, --subject, --key-file), spiffe (--spiffe-socket), github, google, exec (--exec-command) or url (--source-url)",
	},
	{
		field:   textField("federated-token-file", func(c *Config) *string { return &c.FederatedTokenFile }, parsePath),
		ambient: []string{"AZURE_FEDERATED_TOKEN_FILE"},
		usage:   "projected token `file`, for --source file",
	},
	{
		field: textField("issuer", func(c *Config) *string { return &c.Issuer }, parseIssuer),
		usage: "https `URL` of the issuer, for --source local",
	},
	{
		field: textField("subject", func(c *Config) *string { return &c.Subject }, parseSubject),
		usage: "`subject` of the assertions, a SPIFFE ID, for --source local; for --source spiffe the one to choose among several. " +
			"For local it may hold {{namespace}}, {{serviceaccount}}, {{pod}} and {{node}} as segments of its path, " +
			"from SVIDECAR_POD_NAMESPACE, SVIDECAR_SERVICE_ACCOUNT, SVIDECAR_POD_NAME and SVIDECAR_NODE_NAME, and {{hostname}}",
	},
	{
		field: textField("key-file", func(c *Config) *string { return &c.KeyFile }, parseKeyFile),
		usage: "`file` of the signing key, or tpm:HANDLE[?device=/dev/tpmrm0] for a key in a TPM 2.0, for --source local",
	},
	{
		field: textField("key-dir", func(c *Config) *string { return &c.KeyDir }, parsePath),
		usage: "`directory` of signing keys that \"svidecar keys init\" made; --source local then needs no --key-file and no --issuer",
	},
	{
		field: durationField("rotate-every", func(c *Config) *time.Duration { return &c.RotateEvery }, 0, maxRotation), def: "0s",
		usage: "make a new key in --key-dir when the one that signs is so old, up to 43800h; 0s leaves that to \"svidecar keys rotate\"",
	},
	{
		field: boolField("unsafe-unpublished-key", func(c *Config) *bool { return &c.UnsafeUnpublished }), def: "false",
		usage: "sign with the newest key of --key-dir at once: whoever has not read the new key set refuses it",
	},
	{
		field: durationField("assertion-lifetime", func(c *Config) *time.Duration { return &c.AssertionLifetime }, minLifetime, maxLifetime), def: shortDuration(defaultLifetime),
		usage: "how long an assertion is valid, 1m to 1h, for --source local",
	},
	{
		field:   textField("spiffe-socket", func(c *Config) *string { return &c.SPIFFESocket }, parseSocket),
		ambient: []string{"SPIFFE_ENDPOINT_SOCKET"},
		usage:   "`address` of the SPIFFE Workload API, such as unix:///run/spire/agent/public/api.sock, for --source spiffe",
	},
	{
		field: textField("spiffe-hint", func(c *Config) *string { return &c.SPIFFEHint }, parseHint),
		usage: "`hint` of the identity to choose among several, for --source spiffe",
	},
	{
		field: boolField("spiffe-verify", func(c *Config) *bool { return &c.SPIFFEVerify }), def: "false",
		usage: "check each assertion against the trust domain's keys before use, for --source spiffe",
	},
	{
		field:   textField("google-metadata-host", func(c *Config) *string { return &c.GoogleMetadataHost }, parseHost),
		ambient: []string{"GCE_METADATA_HOST"},
		usage:   "`host` of Google Cloud's metadata server, for --source google; if not given, metadata.google.internal",
	},
	{
		field: wordsField("exec-command", func(c *Config) *[]string { return &c.ExecCommand }, parseCommand),
		usage: "`command` that prints a token, for --source exec: the program's absolute path, or a JSON list of it and its arguments",
	},
	{
		field: durationField("exec-timeout", func(c *Config) *time.Duration { return &c.ExecTimeout }, minExec, maxExec), def: shortDuration(defaultExec),
		usage: "bound on one run of --exec-command, 1s to 1m",
	},
	{
		field: textField("source-url", func(c *Config) *string { return &c.SourceURL }, parseTokenURL),
		usage: "https `URL` that gives a token, for --source url; {{audience}} in it stands for --audience",
	},
	{
		field: textField("source-url-bearer-file", func(c *Config) *string { return &c.SourceURLBearerFile }, parsePath),
		usage: "`file` of the bearer token to send to --source-url, read anew each time",
	},
	{
		field: textField("source-url-field", func(c *Config) *string { return &c.SourceURLField }, parseMember),
		usage: "JSON `member` of the reply of --source-url that holds the token, such as data.token; if not given, all of it is the token",
	},
	{
		field: textField("source-url-ca-file", func(c *Config) *string { return &c.SourceURLCAFile }, parsePath),
		usage: "PEM `file` of certificate authorities to trust for --source-url, beside the system's",
	},
	{
		field: textField("audience", func(c *Config) *string { return &c.Audience }, parseAudience), derive: audienceOfCloud,
		usage: "`audience` of the assertions; if not given, that of --cloud",
	},
	{
		field: durationField("exchange-timeout", func(c *Config) *time.Duration { return &c.ExchangeTimeout }, time.Second, 30*time.Second), def: "10s",
		usage: "bound on one exchange with Microsoft Entra ID, 1s to 30s",
	},
	{
		field: countField("cache-entries", func(c *Config) *int { return &c.CacheEntries }, 1, 1_000_000), def: "4096",
		usage: "most tokens held at once, 1 to 1000000",
	},
	{
		field: countField("max-requests", func(c *Config) *int { return &c.MaxRequests }, 1, 100_000), def: "2048",
		usage: "most requests answered at once, 1 to 100000; further ones are told to come back (429)",
	},
	{
		field: countField("max-connections", func(c *Config) *int { return &c.MaxConnections }, 1, 100_000), def: "4096",
		usage: "most connections open at once, 1 to 100000; further ones wait to be accepted",
	},
	{
		field: listField("prefetch", func(c *Config) *[]string { return &c.Prefetch }, parseResource),
		usage: "`resources` to get tokens for at the start, separated by commas; NAME=RESOURCE for an identity of the list",
	},
	{
		field: boolField("ready-requires-token", func(c *Config) *bool { return &c.ReadyRequiresToken }), def: "false",
		usage: "be ready only once every token of --prefetch has come",
	},
	{
		field: durationField("shutdown-delay", func(c *Config) *time.Duration { return &c.ShutdownDelay }, 0, 5*time.Minute), def: "1s",
		usage: "how long serving goes on after a signal to stop, 0s to 5m",
	},
}

// identityFields are the keys of one entry of identities.
var identityFields = []field[Identity]{
	textField("name", func(i *Identity) *string { return &i.Name }, parseName),
	textField("client-id", func(i *Identity) *string { return &i.ClientID }, parseGUID),
	textField("tenant-id", func(i *Identity) *string { return &i.TenantID }, parseTenant),
	textField("object-id", func(i *Identity) *string { return &i.ObjectID }, parseGUID),
	textField("resource-id", func(i *Identity) *string { return &i.ResourceID }, parseResourceID),
	boolField("default", func(i *Identity) *bool { return &i.Default }),
	listField("allowed-resources", func(i *Identity) *[]string { return &i.AllowedResources }, parseResource),
	textField("source", func(i *Identity) *string { return &i.Source }, parseName),
}

// sourceFields are the keys of one entry of sources.
var sourceFields = []field[Source]{
	textField("name", func(s *Source) *string { return &s.Name }, parseName),
	textField("kind", func(s *Source) *string { return &s.Kind }, oneOf(kinds...)),
	textField("path", func(s *Source) *string { return &s.Path }, parsePath),
	textField("issuer", func(s *Source) *string { return &s.Issuer }, parseIssuer),
	textField("subject", func(s *Source) *string { return &s.Subject }, parseSubject),
	textField("key-file", func(s *Source) *string { return &s.KeyFile }, parseKeyFile),
	textField("key-dir", func(s *Source) *string { return &s.KeyDir }, parsePath),
	durationField("rotate-every", func(s *Source) *time.Duration { return &s.RotateEvery }, 0, maxRotation),
	boolField("unsafe-unpublished-key", func(s *Source) *bool { return &s.UnsafeUnpublished }),
	durationField("lifetime", func(s *Source) *time.Duration { return &s.Lifetime }, minLifetime, maxLifetime),
	textField("socket", func(s *Source) *string { return &s.Socket }, parseSocket),
	textField("hint", func(s *Source) *string { return &s.Hint }, parseHint),
	boolField("verify", func(s *Source) *bool { return &s.Verify }),
	textField("metadata-host", func(s *Source) *string { return &s.MetadataHost }, parseHost),
	wordsField("command", func(s *Source) *[]string { return &s.Command }, parseCommand),
	durationField("timeout", func(s *Source) *time.Duration { return &s.Timeout }, minExec, maxExec),
	textField("url", func(s *Source) *string { return &s.URL }, parseTokenURL),
	textField("bearer-file", func(s *Source) *string { return &s.BearerFile }, parsePath),
	textField("field", func(s *Source) *string { return &s.Field }, parseMember),
	textField("ca-file", func(s *Source) *string { return &s.CAFile }, parsePath),
	textField("audience", func(s *Source) *string { return &s.Audience }, parseAudience),
}
