// Package config owns the settings of the sidecar: it turns flags, environment
// variables and one strict YAML file into validated values, and those values
// back into flags. It never acts on a setting, contacts nothing, and logs
// nothing.
//
// Every setting is one row of one table, from which its flag
// (--federated-token-file), its environment variable
// (SVIDECAR_FEDERATED_TOKEN_FILE), its YAML key (federated-token-file) and its
// line of [Config.Print] are all made. Identities and further sources are lists
// and have no flag: sources exist in the file only, identities there or, for
// pods, in the variable SVIDECAR_IDENTITIES.
//
// A setting that is given in several places takes the first of: its flag, its
// SVIDECAR_ variable, the file, and the AZURE_ variable that
// azure-workload-identity's webhook injects. The file outranks AZURE_ variables
// because it was written for svidecar, whereas they are ambient: they appear in
// every pod that the webhook touches.
package config

import (
	"log/slog"
	"time"

	"github.com/spf13/pflag"

	"github.com/svidecar/svidecar/internal/secret"
)

// The kinds of [Source].
const (
	KindFile   = "file"   // a projected token, read anew for each assertion
	KindLocal  = "local"  // assertions signed here with our own key
	KindSPIFFE = "spiffe" // JWT-SVIDs from the SPIFFE Workload API
	KindGitHub = "github" // tokens of a GitHub Actions job
	KindGoogle = "google" // tokens of Google Cloud's metadata server
	KindExec   = "exec"   // what a command prints
	KindURL    = "url"    // what a URL gives
)

// DefaultSourceName is the name of the source made from the top-level settings
// (federated-token-file; or issuer, subject and key-file; or spiffe-socket; and
// so on, as source says).
const DefaultSourceName = "default"

// Config holds the settings of one sidecar. Make one with [Load], or with
// [Default] when a program composes flags for another process. It holds no
// reference to the flag set or the environment, and is safe for concurrent
// reads.
type Config struct {
	ConfigFile string // the YAML file; empty means none

	Listen       string     // host:port that hands out tokens; loopback unless UnsafeListen
	UnsafeListen bool       // lets Listen be reachable from other machines
	OpsListen    string     // host:port of health and metrics; holds no secret
	LogLevel     slog.Level // zero means info
	LogFormat    string     // "json" or "text"
	AllowedHosts []string   // further Host values that Listen accepts; lower case

	RequireAPIVersion bool // refuses IMDS requests without api-version

	Protocols                    []string // names of the protocols served; see docs/protocol.md
	ServiceFabricListen          string   // host:port, loopback; used if Protocols has servicefabric
	ServiceFabricThumbprintFile  string   // written at the start; empty means not written
	ServiceFabricCertificateFile string   // written at the start, as PEM; empty means not written
	ArcListen                    string   // host:port, loopback; used if Protocols has arc
	ArcTokensDir                 string   // where the keys of clients are written

	InstanceMetadataFile   string   // JSON for /metadata/instance; empty means that such requests are refused
	InstanceMetadataPaths  []string // passed on to InstanceMetadataHost, below /metadata/; lower case
	InstanceMetadataHost   string   // host or host:port
	BlockInstanceMetadata  bool     // contradicts the two above; else changes nothing
	MetadataHeaderRequired bool     // always true after Load
	NMIMetrics             bool     // shows aad-pod-identity's metric too

	// IdentityHeader is the secret that App Service clients must present. Load
	// sets it from identity-header or from the contents of IdentityHeaderFile.
	// The zero Value means that the App Service protocol is not served.
	IdentityHeader     secret.Value
	IdentityHeaderFile string // where IdentityHeader was read from; empty means given directly

	Cloud           string // "public", "usgov" or "china"
	AuthorityHost   string // https URL with a final slash and no path
	AuthorityCAFile string // PEM bundle for AuthorityHost; added to the system's roots; empty means those alone
	Region          string // regional token endpoint; empty means the global one

	TenantID string // GUID or verified domain; empty only if every identity has its own
	ClientID string // the identity used when a request names none; may be empty

	Source             string        // one of the kinds: what the top-level source is
	FederatedTokenFile string        // KindFile: path of the projected token
	Issuer             string        // KindLocal: https URL
	Subject            string        // KindLocal: the sub claim, its variables replaced; KindSPIFFE: the SPIFFE ID to choose, may be empty
	SPIFFESocket       string        // KindSPIFFE: address of the Workload API
	SPIFFEHint         string        // KindSPIFFE: the hint to choose by; may be empty
	SPIFFEVerify       bool          // KindSPIFFE: check SVIDs against the bundle
	KeyFile            string        // KindLocal: the signing key, a path or what TPM takes; or
	KeyDir             string        // KindLocal: a directory of signing keys that are rotated
	RotateEvery        time.Duration // KeyDir: life of a key; zero means that others rotate
	UnsafeUnpublished  bool          // KeyDir: sign with the newest key at once
	AssertionLifetime  time.Duration
	Audience           string // what Entra expects in assertions of this cloud

	GoogleMetadataHost  string        // KindGoogle: host or host:port; empty means Google's own
	ExecCommand         []string      // KindExec: the program and its arguments
	ExecTimeout         time.Duration // KindExec: bound on one run
	SourceURL           string        // KindURL
	SourceURLBearerFile string        // KindURL; may be empty
	SourceURLField      string        // KindURL: the JSON member that holds the token; empty means the whole reply
	SourceURLCAFile     string        // KindURL: PEM bundle; added to the system's roots; empty means those alone

	ExchangeTimeout time.Duration // bound on one upstream exchange
	CacheEntries    int           // bound on tokens held
	ShutdownDelay   time.Duration // serving goes on so long after SIGTERM
	MaxRequests     int           // answered at once
	MaxConnections  int           // open at once

	Prefetch           []string // RESOURCE, or NAME=RESOURCE with the name of an identity
	ReadyRequiresToken bool     // readiness waits for Prefetch

	// Identities are the only identities served. Nil means that any client id
	// may be asked for, in TenantID, with ClientID as the default.
	Identities []Identity
	// Sources are the listed ones in the file's order, then the one named
	// [DefaultSourceName] if the top-level settings make it. Never empty after Load.
	Sources []Source

	from map[string]origin // where each value came from; nil in a Config made by hand
}

// Identity is one Entra application or user-assigned managed identity.
type Identity struct {
	Name             string // unique; the client id if the file gives none
	ClientID         string // GUID, lower case
	TenantID         string // as [Config.TenantID]; never empty after Load
	ObjectID         string // GUID, lower case; may be empty
	ResourceID       string // as written: match it without regard to case; may be empty
	Default          bool   // used when a request names no identity; at most one is
	AllowedResources []string
	Source           string // name of one of [Config.Sources]; never empty after Load
}

// Source is one origin of assertions.
type Source struct {
	Name string // unique
	Kind string // one of the kinds

	Path string // KindFile: the token

	Issuer   string        // KindLocal
	Subject  string        // KindLocal; KindSPIFFE, may be empty
	KeyFile  string        // KindLocal: a path or what TPM takes; or
	KeyDir   string        // KindLocal: whose issuer is used if Issuer is empty
	Lifetime time.Duration // KindLocal; zero for others

	RotateEvery       time.Duration // KeyDir; zero means never
	UnsafeUnpublished bool          // KeyDir

	Socket string // KindSPIFFE
	Hint   string // KindSPIFFE; may be empty
	Verify bool   // KindSPIFFE

	MetadataHost string // KindGoogle; may be empty

	Command []string      // KindExec
	Timeout time.Duration // KindExec; zero for others

	URL        string // KindURL
	BearerFile string // KindURL; may be empty
	Field      string // KindURL; may be empty
	CAFile     string // KindURL; may be empty

	Audience string // what the assertion's aud is (KindLocal), or should be (others)
}

// Default returns a Config in which every setting has its default value. It is
// not valid by itself: it has neither tenant nor source. Whoever changes Cloud
// in it empties AuthorityHost and Audience too, so that [Config.Flags] leaves
// them to follow the cloud.
func Default() *Config {
	l := newLoader()
	l.derive()
	l.cfg.from = nil
	return l.cfg
}

// Load reads, merges and validates all settings. fs is a set that [Register]
// has prepared and the caller has parsed; nil means that there are no flags.
// environ is as from os.Environ: an empty variable counts as unset, and an
// unknown SVIDECAR_ variable is an error, save those that Kubernetes sets for a
// Service of that name.
//
// The error is everything that is wrong, one line each: first all values that
// are wrong by themselves, and once there are none, all that contradict or miss
// each other. No error shows a secret.
func Load(fs *pflag.FlagSet, environ []string) (*Config, error) {
	l := newLoader()
	l.collect(fs, environ)
	if err := l.err(); err != nil {
		return nil, err
	}
	l.derive()
	l.check()
	if err := l.err(); err != nil {
		return nil, err
	}
	return l.cfg, nil
}

// LoadPart is Load for a command that needs only some settings: values are
// merged and checked by themselves, and the addresses against each other, but
// nothing is missed. Identities and Sources may be empty.
func LoadPart(fs *pflag.FlagSet, environ []string) (*Config, error) {
	l := newLoader()
	l.collect(fs, environ)
	if err := l.err(); err != nil {
		return nil, err
	}
	l.derive()
	l.checkListeners()
	if err := l.err(); err != nil {
		return nil, err
	}
	return l.cfg, nil
}

// LoadSources is LoadPart for a command that needs Sources too.
func LoadSources(fs *pflag.FlagSet, environ []string) (*Config, error) {
	l := newLoader()
	l.collect(fs, environ)
	if err := l.err(); err != nil {
		return nil, err
	}
	l.derive()
	l.checkSources()
	if err := l.err(); err != nil {
		return nil, err
	}
	return l.cfg, nil
}

// DefaultSource names the source of requests that no identity of the list
// decides: the one made from the top-level settings, else the only one. It is
// empty if there are several and none is [DefaultSourceName]; Load allows that only
// when every identity names its own.
func (c *Config) DefaultSource() string {
	for _, s := range c.Sources {
		if s.Name == DefaultSourceName {
			return s.Name
		}
	}
	if len(c.Sources) == 1 {
		return c.Sources[0].Name
	}
	return ""
}
