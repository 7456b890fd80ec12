//go:build unix

package proxy_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/imds"
	"github.com/svidecar/svidecar/proxy"
)

// TestArcDirectoryIsOurs: who owns the directory, or the link to it, can have
// keys written elsewhere, and read them.
func TestArcDirectoryIsOurs(t *testing.T) {
	foreign, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	cases := map[string]string{link: "symbolic link", link + "/": "symbolic link"}
	if os.Geteuid() == 0 { // nobody else may give a directory away
		if err := os.Chown(foreign, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		cases[foreign] = "belongs to"
	}
	for dir, says := range cases {
		s, err := proxy.New(proxy.Config{Tokens: &fakeTokens{}, Policy: policy(t, twoIdentities()), Logger: quiet(), Protocols: []imds.Protocol{imds.Arc}, ArcTokensDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop() // should it run after all
		err = s.Run(ctx, listen(t), listen(t), proxy.Endpoint{Protocol: imds.Arc, Listener: listen(t)})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want an error that says %q", dir, err, says)
		}
	}
}
