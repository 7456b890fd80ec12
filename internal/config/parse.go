package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/svidecar/svidecar/internal/secret"
)

// Lengths, in characters: of names of ours and of regions, and of Azure's names
// of resource groups and identities.
const (
	maxName     = 63
	maxGroup    = 90
	maxIdentity = 128
)

var (
	hostName   = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`)
	domainName = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]$`)
	entryName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	regionName = regexp.MustCompile(`^[a-z][a-z0-9]*$`)
	resourceID = regexp.MustCompile(`(?i)^/subscriptions/([^/]+)/resourcegroups/([\p{L}\p{N}_.()-]+)` +
		`/providers/Microsoft\.ManagedIdentity/userAssignedIdentities/([a-z0-9_-]+)$`)
)

// oneOf accepts the given words, in any case.
func oneOf(words ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		if w := strings.ToLower(s); slices.Contains(words, w) {
			return w, nil
		}
		return "", fmt.Errorf("%s is none of %s", quote(s), strings.Join(words, ", "))
	}
}

// parsePath accepts any path, relative ones included, that survives being
// written in one line.
func parsePath(s string) (string, error) {
	if s != strings.TrimSpace(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return "", fmt.Errorf("%s begins or ends with white space, or holds a control character: give a plain path", quote(s))
	}
	return s, nil
}

// parseArcDir accepts what clients can read from a header, which they cut up by
// hand. That protocol is for Linux alone.
func parseArcDir(s string) (string, error) {
	if !strings.HasPrefix(s, "/") || strings.ContainsAny(s, "\"'`=") || strings.ContainsFunc(s, unicode.IsSpace) {
		return "", fmt.Errorf("%s cannot be told to clients: give an absolute path without spaces, quotes and '='", quote(s))
	}
	return parsePath(s)
}

// parseAddress normalises the host to lower case and the port to digits.
func parseAddress(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%s is not host:port: write an address such as 127.0.0.1:8000 or [::1]:8000", quote(s))
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", fmt.Errorf("%s has no port from 0 to 65535: write an address such as 127.0.0.1:8000", quote(s))
	}
	host = strings.ToLower(host)
	if !isHost(host) && host != "" {
		return "", fmt.Errorf("%s has a host that is neither an IP address nor a name: write an address such as 127.0.0.1:8000", quote(s))
	}
	return net.JoinHostPort(host, strconv.FormatUint(n, 10)), nil
}

// isHost reports whether s, in lower case, is an IP address or a host name.
func isHost(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil || hostName.MatchString(s)
}

// parseHost accepts what a Host header holds: a host, with a port or without.
func parseHost(s string) (string, error) {
	low := strings.ToLower(s)
	if isBareHost(low) {
		return low, nil
	}
	if _, _, err := net.SplitHostPort(low); err == nil {
		if v, err := parseAddress(low); err == nil && !strings.HasPrefix(v, ":") {
			return v, nil
		}
	}
	return "", fmt.Errorf("%s is not a Host value: write a host or host:port, such as sidecar.internal:8000, without scheme, path or wildcard", quote(s))
}

// isBareHost reports whether s is a host as a Host header writes it without a
// port: IPv6 in brackets.
func isBareHost(s string) bool {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		a, err := netip.ParseAddr(inner)
		return ok && err == nil && a.Is6()
	}
	return isHost(s) && !strings.Contains(s, ":")
}

// parseSocket accepts the addresses that the SPIFFE Workload Endpoint
// specification allows: an absolute path, or an IP address with a port.
func parseSocket(s string) (string, error) {
	err := workloadapi.ValidateAddress(s)
	if err != nil {
		return "", fmt.Errorf("%s is no address of a Workload API: write one such as unix:///run/spire/agent/public/api.sock or tcp://127.0.0.1:8089", quote(s))
	}
	return s, nil
}

func parseHint(s string) (string, error) {
	if hasSpace(s) || len(s) > 1024 {
		return "", fmt.Errorf("%s is no hint: write it as the registration entry has it, without white space", quote(s))
	}
	return s, nil
}

func parseGUID(s string) (string, error) {
	if _, err := uuid.Parse(s); err != nil || len(s) != 36 {
		return "", fmt.Errorf("%s is not a GUID: write it like 12345678-90ab-cdef-1234-567890abcdef", quote(s))
	}
	return strings.ToLower(s), nil
}

func parseTenant(s string) (string, error) {
	low := strings.ToLower(s)
	if slices.Contains([]string{"common", "organizations", "consumers"}, low) {
		return "", fmt.Errorf("%s stands for many tenants, and federated credentials belong to one: give that tenant's GUID or verified domain name", quote(s))
	}
	if id, err := parseGUID(s); err == nil {
		return id, nil
	}
	if domainName.MatchString(low) && len(low) <= 253 {
		return low, nil
	}
	return "", fmt.Errorf("%s is neither a GUID nor a domain name: give the tenant's GUID, or a verified domain such as contoso.onmicrosoft.com", quote(s))
}

func parseRegion(s string) (string, error) {
	low := strings.ToLower(s)
	switch {
	case strings.HasPrefix(low, "tryautodetect"):
		return "", fmt.Errorf("%s would ask 169.254.169.254, which svidecar stands in for: name the region, or leave it out", quote(s))
	case low == "disablemsalforceregion", !regionName.MatchString(low), len(low) > maxName:
		return "", fmt.Errorf("%s is not a region: name one such as westeurope, or leave it out to use the global endpoint", quote(s))
	}
	return low, nil
}

func parseAuthority(s string) (string, error) {
	u, err := parseHTTPS(s)
	if err != nil {
		return "", err
	}
	if u.Path != "" && u.Path != "/" {
		return "", fmt.Errorf("%s has a path: give only the host, such as https://login.microsoftonline.com/, and the tenant as tenant-id", quoteURL(s))
	}
	return "https://" + strings.ToLower(u.Host) + "/", nil
}

// parseIssuer leaves s as it is: Entra compares issuers byte by byte.
func parseIssuer(s string) (string, error) {
	if _, err := parseHTTPS(s); err != nil {
		return "", err
	}
	return s, nil
}

// parseHTTPS accepts https://host[:port][/path] and nothing more.
func parseHTTPS(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || hasSpace(s):
		return nil, fmt.Errorf("%s is not a URL: write it like https://host/", quoteURL(s))
	case u.User != nil:
		return nil, fmt.Errorf("%s holds a user or password: remove what precedes the @", quoteURL(s))
	case u.Scheme != "https":
		return nil, fmt.Errorf("%s is not https: write it like https://host/", quoteURL(s))
	case !validAuthority(u):
		return nil, fmt.Errorf("%s has no valid host: write it like https://host/", quoteURL(s))
	case strings.ContainsAny(s, "?#"):
		return nil, fmt.Errorf("%s has a query or a fragment: remove what follows the ? or #", quoteURL(s))
	}
	return u, nil
}

// quoteURL is quote without what may be a password.
func quoteURL(s string) string {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		return quote("…" + s[i:])
	}
	return quote(s)
}

func validAuthority(u *url.URL) bool {
	if !isHost(strings.ToLower(u.Hostname())) {
		return false
	}
	if u.Port() == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && n > 0
}

// parseSubject takes any subject that Entra can store, or a template of one;
// whether it is a SPIFFE ID is for the minter to say.
func parseSubject(s string) (string, error) {
	if isTemplate(s) {
		return s, checkTemplate(s)
	}
	return parseClaim(s)
}

func parseAudience(s string) (string, error) { return parseClaim(s) }

// parseClaim refuses what a federated credential cannot hold: Entra bounds its
// fields at 600 characters.
func parseClaim(s string) (string, error) {
	if hasSpace(s) || len(s) > 600 {
		return "", fmt.Errorf("%s holds white space or is longer than 600 characters: a federated credential cannot name it", quote(s))
	}
	return s, nil
}

func parseName(s string) (string, error) {
	if !entryName.MatchString(s) || len(s) > maxName {
		return "", fmt.Errorf("%s is not a name: use at most 63 letters, digits, dots, dashes and underscores", quote(s))
	}
	return s, nil
}

func parseResource(s string) (string, error) {
	if s == "" || hasSpace(s) {
		return "", fmt.Errorf("%s is empty or holds white space: write a resource such as https://vault.azure.net", quote(s))
	}
	return s, nil
}

func parseResourceID(s string) (string, error) {
	m := resourceID.FindStringSubmatch(s)
	// Lengths are counted here: counted repetitions cost megabytes when the
	// expression is compiled, at every start.
	if m != nil && utf8.RuneCountInString(m[2]) <= maxGroup && len(m[3]) <= maxIdentity {
		if _, err := parseGUID(m[1]); err == nil {
			return s, nil
		}
	}
	return "", fmt.Errorf("%s is not a user-assigned identity: write /subscriptions/<guid>/resourcegroups/<group>/providers/Microsoft.ManagedIdentity/userAssignedIdentities/<name>", quote(s))
}

func hasSpace(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) })
}

func levelField(name string, at func(*Config) *slog.Level) field[Config] {
	parse := oneOf("debug", "info", "warn", "error")
	return field[Config]{
		name: name, kind: text,
		set: func(c *Config, s string) error {
			word, err := parse(s)
			if err != nil {
				return err
			}
			return at(c).UnmarshalText([]byte(word))
		},
		get: func(c *Config) string { return strings.ToLower(at(c).String()) },
	}
}

// headerField is the one secret setting: nothing it returns shows the value.
func headerField(name string, at func(*Config) *secret.Value) field[Config] {
	return field[Config]{
		name: name, kind: text, secret: true,
		set: func(c *Config, s string) error {
			if err := checkHeader(s); err != nil {
				return err
			}
			*at(c) = secret.New(s)
			return nil
		},
		get: func(c *Config) string {
			if at(c).IsZero() {
				return ""
			}
			return secret.Redacted
		},
	}
}

// checkHeader refuses what a header cannot carry or what could be guessed.
func checkHeader(s string) error {
	const least, most = 16, 1024
	switch {
	case len(s) < least:
		return fmt.Errorf("the secret has fewer than %d characters and could be guessed: make one with, for example, openssl rand -hex 32", least)
	case len(s) > most:
		return fmt.Errorf("the secret has more than %d characters: make one with, for example, openssl rand -hex 32", most)
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return errors.New("the secret holds a space, or a character that is not printable ASCII: make one with, for example, openssl rand -hex 32")
	}
	return nil
}
