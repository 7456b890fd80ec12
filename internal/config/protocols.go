package config

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
)

// The protocols that Config.Protocols names.
const (
	ProtocolIMDS          = "imds"
	ProtocolAppService    = "appservice"
	ProtocolAzureML       = "azureml"
	ProtocolCloudShell    = "cloudshell"
	ProtocolServiceFabric = "servicefabric"
	ProtocolArc           = "arc"
)

var protocolNames = []string{ProtocolIMDS, ProtocolAppService, ProtocolAzureML, ProtocolCloudShell, ProtocolServiceFabric, ProtocolArc}

// Serves reports whether Protocols has the name.
func (c *Config) Serves(protocol string) bool { return slices.Contains(c.Protocols, protocol) }

// checkProtocols refuses what a protocol cannot do without. A missing secret of
// appservice, which is on by default, is told to its clients.
func (l *loader) checkProtocols() {
	for _, name := range []string{ProtocolAzureML, ProtocolServiceFabric} {
		if l.cfg.Serves(name) && l.cfg.IdentityHeader.IsZero() {
			l.addf(l.where("protocols"), "%s needs a shared secret: add --identity-header-file", name)
		}
	}
}

// checkProtocolListeners wants loopback, whatever --unsafe-listen says: these
// protocols are of one machine.
func (l *loader) checkProtocolListeners() {
	taken := []string{"listen", "ops-listen"}
	for _, own := range []struct{ protocol, setting string }{
		{ProtocolServiceFabric, "servicefabric-listen"}, {ProtocolArc, "arc-listen"},
	} {
		if !l.cfg.Serves(own.protocol) {
			continue
		}
		address := settingNamed(own.setting).get(l.cfg)
		host, port, _ := net.SplitHostPort(address)
		if !isLoopback(host) {
			l.addf(l.where(own.setting), "%s is not a loopback address: use %s", quote(address), net.JoinHostPort("127.0.0.1", port))
		}
		for _, other := range taken {
			otherHost, otherPort, _ := net.SplitHostPort(settingNamed(other).get(l.cfg))
			if port == otherPort && port != "0" && overlap(host, otherHost) {
				l.addf(l.where(own.setting), "%s takes the port of %s: give one of them another port", quote(address), l.mention(other))
			}
		}
		taken = append(taken, own.setting)
	}
}

// checkMetadata refuses two answers to one question, and what no setting can
// turn off.
func (l *loader) checkMetadata() {
	c := l.cfg
	if !c.MetadataHeaderRequired {
		l.addf(l.where("metadata-header-required"), "cannot be false: requests without the header Metadata are what protects from forged ones; mend the client that does not send it")
	}
	sources := []string{"instance-metadata-file", "instance-metadata-paths"}
	if c.InstanceMetadataFile != "" && len(c.InstanceMetadataPaths) > 0 {
		l.addf(l.where(sources[0]), "contradicts %s: answer from the file, or pass requests on", l.mention(sources[1]))
	}
	for _, name := range sources {
		if c.BlockInstanceMetadata && settingNamed(name).get(c) != "" {
			l.addf(l.where(name), "contradicts %s: remove one of them", l.mention("block-instance-metadata"))
		}
	}
}

// metadataPath is a path by name, in which no reader sees another one.
var metadataPath = regexp.MustCompile(`^[a-z0-9-]+(/[a-z0-9-]+)*$`)

func parseMetadataPath(s string) (string, error) {
	low := strings.ToLower(strings.Trim(s, "/"))
	top, _, _ := strings.Cut(low, "/")
	switch {
	case !metadataPath.MatchString(low) || strings.HasPrefix(low, "metadata/"):
		return "", fmt.Errorf("%s is not a path below /metadata/: write it like instance/compute, in letters, digits and dashes", quote(s))
	case top == "identity":
		return "", fmt.Errorf("%s is where the machine's own tokens are: it is never passed on", quote(s))
	case top == "versions":
		return "", fmt.Errorf("%s is answered by svidecar: remove it", quote(s))
	}
	return low, nil
}
