package publish

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
)

// Where the documents lie below the issuer's URL, and so below the directory.
const (
	discoveryFile = ".well-known/openid-configuration" // OpenID Connect Discovery 1.0, section 4
	keySetFile    = "openid/v1/jwks"
)

// maxDocument bounds a document that is looked at before it is replaced.
const maxDocument = 1 << 20

// Export writes the two documents of [mint.Documents] below dir, for static
// hosting: dir's contents then belong at the issuer's URL, with content type
// application/json. Each file appears whole. The key set is written first, so that
// a discovery document never points at nothing.
//
// A directory that holds the documents of another issuer is refused, as is one
// whose discovery document cannot be read.
func Export(dir string, discovery, keySet []byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("publish: export: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("publish: export: %w", err)
	}
	defer root.Close()
	if err := checkIssuer(root, discovery); err != nil {
		return fmt.Errorf("publish: export to %q: %w", dir, err)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{keySetFile, keySet}, {discoveryFile, discovery}} {
		if err := replace(root, f.name, f.data); err != nil {
			return fmt.Errorf("publish: export to %q: %w", dir, err)
		}
	}
	return nil
}

func checkIssuer(root *os.Root, discovery []byte) error {
	f, err := root.Open(discoveryFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	old, err := io.ReadAll(io.LimitReader(f, maxDocument))
	if err != nil {
		return err
	}
	is, want := issuerOf(old), issuerOf(discovery)
	if is != want {
		return fmt.Errorf("%s is of issuer %q, not %q: give a directory of its own", discoveryFile, is, want)
	}
	return nil
}

// issuerOf is empty if the document is none.
func issuerOf(discovery []byte) string {
	var doc struct {
		Issuer string `json:"issuer"`
	}
	_ = json.Unmarshal(discovery, &doc)
	return doc.Issuer
}

// replace writes a file beside the old one, and gives it its name.
func replace(root *os.Root, name string, data []byte) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	// One name: who exports twice at once writes the same bytes, and the one
	// that comes second fails.
	tmp := name + ".tmp"
	_ = root.Remove(tmp) // left by an export that was killed
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		_ = root.Remove(tmp)
	}
	return err
}
