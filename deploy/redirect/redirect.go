// Package redirect owns the redirection of one network namespace's requests for
// the metadata service to the sidecar in the same namespace: it plans it as text
// that a reviewer can read, applies it, reads it back, and proves that it leads
// to the sidecar. It never exempts a user or a process, never takes a plan for
// done that it has not read back, and never runs a shell.
//
// The metadata service of Azure has an IPv4 address only, and so has this.
package redirect

import (
	"fmt"
	"net/netip"
	"strings"
)

// Method is how requests are redirected.
type Method string

const (
	// NFTables is one rule in a table of our own, set by netlink.
	NFTables Method = "nftables"
	// Loopback gives the address to the loopback link: the sidecar listens
	// on it itself, and no packet is rewritten.
	Loopback Method = "address"
	// IPTables is the rule as the iptables program sets it, for kernels
	// without nftables. It is neither atomic nor ours alone.
	IPTables Method = "iptables"
)

// Bounds and defaults of Config.
const (
	DefaultPort = 8000 // of the sidecar's token listener
	imdsPort    = 80
	maxPort     = 65535
)

// imds is the address that clients have built in. The block around it is the
// only one that may be redirected: nothing in it is routed, so that no rule of
// ours can take an app's other traffic.
var (
	imds      = netip.AddrFrom4([4]byte{169, 254, 169, 254})
	linkLocal = netip.MustParsePrefix("169.254.0.0/16")
)

// Config says what is redirected and how.
type Config struct {
	// Method is how. Empty means NFTables.
	Method Method
	// Address is the one whose port 80 is redirected: IPv4, link-local.
	// The zero Addr means 169.254.169.254.
	Address netip.Addr
	// Port is the sidecar's, 1 to 65535, on 127.0.0.1. Zero means
	// DefaultPort; with Loopback, 80, which is the only one it can be.
	Port int
	// UnsafeHostNetwork lets the plan be applied and verified where other
	// pods, or a whole machine, may be redirected too.
	UnsafeHostNetwork bool
}

// Plan is what will be done. It is immutable.
type Plan struct{ cfg Config }

// New makes a plan. It looks at nothing but cfg.
func New(cfg Config) (*Plan, error) {
	if cfg.Method == "" {
		cfg.Method = NFTables
	}
	if !cfg.Address.IsValid() {
		cfg.Address = imds
	}
	if cfg.Port == 0 {
		cfg.Port = cfg.Method.port()
	}
	switch {
	case cfg.Method != NFTables && cfg.Method != Loopback && cfg.Method != IPTables:
		return nil, fmt.Errorf("redirect: there is no method %q: use %s, %s or %s", string(cfg.Method), NFTables, Loopback, IPTables)
	case !cfg.Address.Is4():
		return nil, fmt.Errorf("redirect: %s is an IPv6 address: the metadata service has an IPv4 address only, so leave the address out", cfg.Address)
	case !linkLocal.Contains(cfg.Address):
		return nil, fmt.Errorf("redirect: %s is not link-local (169.254.0.0/16): redirecting it would take an app's other traffic; leave the address out", cfg.Address)
	case cfg.Port < 1 || cfg.Port > maxPort:
		return nil, fmt.Errorf("redirect: there is no port %d: give the sidecar's, 1 to 65535", cfg.Port)
	case cfg.Method == Loopback && cfg.Port != imdsPort:
		return nil, fmt.Errorf("redirect: method %s rewrites no port: let the sidecar listen on %s:80, and leave port %d out", Loopback, cfg.Address, cfg.Port)
	}
	return &Plan{cfg}, nil
}

func (m Method) port() int {
	if m == Loopback {
		return imdsPort
	}
	return DefaultPort
}

// String is the plan as the tools of its method would be given it: input of nft
// -f, or commands.
func (p *Plan) String() string {
	switch p.cfg.Method {
	case Loopback:
		return p.addressText()
	case IPTables:
		return p.iptablesText()
	default:
		return p.nftablesText()
	}
}

// What nftables objects of ours are called, and the chain's place: after
// connection tracking, without which there is no redirection, and before the
// chains of others (-100), such as a service mesh's, which might redirect first.
const (
	tableName = "svidecar"
	chainName = "output"
	priority  = -110
)

func (p *Plan) nftablesText() string {
	return fmt.Sprintf(`# One transaction: whatever the table held is replaced.
add table ip %[1]s
delete table ip %[1]s
table ip %[1]s {
	chain %[2]s {
		type nat hook output priority %[3]d; policy accept;
		ip daddr %[4]s tcp dport %[5]d redirect to :%[6]d
	}
}
`, tableName, chainName, priority, p.cfg.Address, imdsPort, p.cfg.Port)
}

func (p *Plan) addressText() string {
	return fmt.Sprintf("# The sidecar must listen on %[1]s:%[2]d.\nip link set dev lo up\nip address replace %[1]s/32 dev lo scope host\n", p.cfg.Address, imdsPort)
}

func (p *Plan) iptablesText() string {
	var b strings.Builder
	b.WriteString("# The second is run if the first one fails; the third must then print the rule first.\n")
	for _, args := range [][]string{p.iptablesArgs("-C", "OUTPUT"), p.iptablesArgs("-I", "OUTPUT", "1"), iptablesList()} {
		b.WriteString("iptables " + strings.Join(args, " ") + "\n")
	}
	return b.String()
}

// iptablesArgs are those of one iptables command about the rule.
func (p *Plan) iptablesArgs(command ...string) []string {
	return append(append([]string{"-w", "10", "-t", "nat"}, command...), p.iptablesRule()...)
}

// iptablesRule is the rule as iptables -S prints it too.
func (p *Plan) iptablesRule() []string {
	return strings.Fields(fmt.Sprintf("-d %s/32 -p tcp -m tcp --dport %d -j REDIRECT --to-ports %d", p.cfg.Address, imdsPort, p.cfg.Port))
}

func iptablesList() []string { return []string{"-w", "10", "-t", "nat", "-S", "OUTPUT"} }
