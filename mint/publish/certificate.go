package publish

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificates hands out the certificate in two files, and reads them again when
// they change: certificates are renewed while servers run.
type certificates struct {
	certFile, keyFile string
	host              string // that verifiers ask for
	log               *slog.Logger

	mu    sync.Mutex
	seen  [2]version // what was last tried, whether or not it was good
	chain *tls.Certificate
	told  time.Time // when its end was last complained of
}

// version tells two contents of a file apart.
type version struct {
	modified time.Time
	size     int64
	id       any // of the file itself: a renewal may keep time and size
}

// load reads the files for the first time.
func (c *certificates) load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read(c.versions())
}

// choose is a tls.Config.GetCertificate. Files that cannot be read, as in the
// middle of a renewal, leave the certificate of before in use.
func (c *certificates) choose(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.versions(); now != c.seen {
		if err := c.read(now); err != nil {
			c.log.Error("the certificate of before is served on", "error", err.Error())
		} else {
			c.log.Info("the certificate was renewed", "not_after", c.chain.Leaf.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	c.tellEnd(time.Now())
	return c.chain, nil
}

// endIsNear is when a certificate should have been renewed, by all that renew
// them by themselves.
const endIsNear = 7 * 24 * time.Hour

// tellEnd complains of a certificate that nobody renews, once an hour.
func (c *certificates) tellEnd(now time.Time) {
	left := c.chain.Leaf.NotAfter.Sub(now)
	if left > endIsNear || now.Sub(c.told) < time.Hour {
		return
	}
	c.told = now
	level, what := slog.LevelWarn, "the certificate ends soon: renew it"
	if left <= 0 {
		level, what = slog.LevelError, "the certificate has ended, and nobody can verify assertions by these documents: renew it"
	}
	c.log.Log(context.Background(), level, what, "cert_file", c.certFile, "not_after", c.chain.Leaf.NotAfter.UTC().Format(time.RFC3339))
}

func (c *certificates) versions() [2]version {
	return [2]version{versionOf(c.certFile), versionOf(c.keyFile)}
}

// versionOf is zero for a file that cannot be looked at.
func versionOf(path string) version {
	info, err := os.Stat(path)
	if err != nil {
		return version{}
	}
	return version{modified: info.ModTime(), size: info.Size(), id: inode(info)}
}

// read notes what it tried, so that broken files are complained of once.
func (c *certificates) read(now [2]version) error {
	c.seen = now
	chain, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	var path *fs.PathError
	switch {
	case errors.As(err, &path):
		return fmt.Errorf("publish: read the certificate: %w: correct the path, or create the file", err)
	case err != nil: // its text describes the files' form, never their contents
		return fmt.Errorf("publish: the certificate in %q with the key in %q: %v: give a PEM chain and the key of its first certificate", c.certFile, c.keyFile, err)
	}
	if end := chain.Leaf.NotAfter; time.Now().After(end) {
		return fmt.Errorf("publish: the certificate in %q ended at %s: renew it", c.certFile, end.UTC().Format(time.RFC3339))
	}
	if err := chain.Leaf.VerifyHostname(c.host); err != nil {
		c.log.Warn("the certificate is not for the issuer's host: only a proxy in front can make up for that", "cert_file", c.certFile, "error", err.Error())
	}
	c.chain = &chain
	return nil
}
