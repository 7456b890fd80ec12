package redirect_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/deploy/redirect"
)

var update = flag.Bool("update", false, "rewrite the golden files under testdata")

func plan(t *testing.T, cfg redirect.Config) *redirect.Plan {
	t.Helper()
	p, err := redirect.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestNewRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		cfg  redirect.Config
		says string
	}{
		"no method":              {redirect.Config{Method: "ebtables"}, `no method "ebtables": use nftables, address or iptables`},
		"IPv6":                   {redirect.Config{Address: netip.MustParseAddr("fd00:ec2::254")}, "IPv4 address only"},
		"IPv4 in IPv6":           {redirect.Config{Address: netip.MustParseAddr("::ffff:169.254.169.254")}, "IPv4 address only"},
		"everybody's address":    {redirect.Config{Address: netip.MustParseAddr("10.0.0.1")}, "not link-local"},
		"no address":             {redirect.Config{Address: netip.IPv4Unspecified()}, "not link-local"},
		"negative port":          {redirect.Config{Port: -1}, "no port -1"},
		"port that does not fit": {redirect.Config{Port: 65536}, "no port 65536"},
		"address with a port":    {redirect.Config{Method: redirect.Loopback, Port: 8000}, "rewrites no port"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := redirect.New(tt.cfg)
			if err == nil {
				t.Fatalf("made a plan:\n%s", p)
			}
			if !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %q, want a line with %q", err, tt.says)
			}
		})
	}
}

// TestPlanGolden: what a reviewer reads before it is done.
func TestPlanGolden(t *testing.T) {
	for name, cfg := range map[string]redirect.Config{
		"default":   {},
		"nftables":  {Method: redirect.NFTables, Address: netip.MustParseAddr("169.254.170.2"), Port: 65535},
		"address":   {Method: redirect.Loopback},
		"iptables":  {Method: redirect.IPTables, Port: 9000},
		"host-wide": {UnsafeHostNetwork: true},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("testdata", name+".txt")
			got := plan(t, cfg).String()
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
