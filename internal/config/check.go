package config

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// check refuses values that contradict or miss each other, and fills in what
// follows from the rest.
func (l *loader) check() {
	l.checkListeners()
	l.checkIdentityHeader()
	l.checkProtocols()
	l.checkAuthority()
	l.checkSources()
	l.checkIdentities()
	l.checkPrefetch()
}

func (l *loader) checkPrefetch() {
	for _, entry := range l.cfg.Prefetch {
		name, _, named := strings.Cut(entry, "=")
		known := slices.ContainsFunc(l.cfg.Identities, func(i Identity) bool { return i.Name == name })
		if named && !known {
			l.addf(l.where("prefetch"), "%s names no identity of the list: write RESOURCE, or NAME=RESOURCE", quote(entry))
		}
	}
	if l.cfg.ReadyRequiresToken && len(l.cfg.Prefetch) == 0 {
		l.addf(l.where("ready-requires-token"), "needs --prefetch too: say which tokens to wait for, such as https://vault.azure.net")
	}
}

func (l *loader) checkListeners() {
	c := l.cfg
	l.checkProtocolListeners()
	l.checkMetadata()
	host, port, _ := net.SplitHostPort(c.Listen)
	if !isLoopback(host) && !c.UnsafeListen {
		l.addf(l.where("listen"), "%s is not a loopback address: other machines could ask for tokens; use %s, or add --unsafe-listen if that is what you want",
			quote(c.Listen), net.JoinHostPort("127.0.0.1", port))
	}
	opsHost, opsPort, _ := net.SplitHostPort(c.OpsListen)
	if port == opsPort && port != "0" && overlap(host, opsHost) {
		l.addf(l.where("ops-listen"), "%s takes the port of %s: give one of them another port", quote(c.OpsListen), l.mention("listen"))
	}
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && a.Unmap().IsLoopback())
}

// overlap reports whether two listeners on these hosts would contend for a
// port. It may say so too often, never too seldom.
func overlap(a, b string) bool {
	return a == b || isWildcard(a) || isWildcard(b) ||
		(a == "localhost" && isLoopback(b)) || (b == "localhost" && isLoopback(a))
}

func isWildcard(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "" || (err == nil && a.Unmap().IsUnspecified())
}

func (l *loader) checkIdentityHeader() {
	switch {
	case !l.given("identity-header-file"):
	case l.given("identity-header"):
		l.addf(l.where("identity-header-file"), "contradicts %s, which gives the same secret: remove one of them", l.mention("identity-header"))
	default:
		l.readHeader()
	}
}

func (l *loader) readHeader() {
	data, err := readBounded(l.cfg.IdentityHeaderFile)
	if err != nil {
		l.addf(l.where("identity-header-file"), "%w: correct the path, or write the secret there", err)
		return
	}
	header := settingNamed("identity-header")
	if err := header.set(l.cfg, strings.TrimSpace(string(data))); err != nil {
		l.addf(l.where("identity-header-file"), "%s: %w", quote(l.cfg.IdentityHeaderFile), err)
		return
	}
	l.cfg.from[header.name] = derivedFrom("identity-header-file")
}

func settingNamed(name string) setting {
	for _, s := range settings {
		if s.name == name {
			return s
		}
	}
	panic("config: internal error: no setting " + name)
}

func (l *loader) checkAuthority() {
	c := l.cfg
	if known := cloudServing(c.AuthorityHost).name; known != "" && known != c.Cloud {
		l.addf(l.where("cloud"), "%s contradicts %s, which belongs to %s: remove one of them",
			quote(c.Cloud), l.mention("authority-host"), quote(known))
	}
	l.checkRoots("authority-ca-file", c.AuthorityCAFile)
}

// checkCertificates wants at least one certificate in the file, and none that
// does not parse. Other PEM blocks are let be: some bundles hold comments.
func checkCertificates(path string) error {
	rest, err := readBounded(path)
	if err != nil {
		return err
	}
	for found := false; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if !found {
				return errors.New(quote(path) + " holds no certificate")
			}
			return nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return errors.New(quote(path) + " holds a certificate that does not parse")
		}
		found = true
	}
}
