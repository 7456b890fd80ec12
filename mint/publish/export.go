package publish

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// Where the documents lie below the issuer's URL, and so below the directory.
const (
	discoveryFile = ".well-known/openid-configuration" // OpenID Connect Discovery 1.0, section 4
	keySetFile    = "openid/v1/jwks"
)

// maxDocument bounds a document that is read.
const maxDocument = 1 << 20

// Export writes the two documents of [mint.Documents] below dir, for static
// hosting: dir's contents then belong at the issuer's URL, with content type
// application/json. Each file appears whole. The key set is written first, so that
// a discovery document never points at nothing. It returns the kids of the keys
// that were in the key set before and are not now.
//
// A directory that holds the documents of another issuer is refused, as is one
// whose discovery document cannot be read.
func Export(dir string, discovery, keySet []byte) (dropped []string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("publish: export: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("publish: export: %w", err)
	}
	defer root.Close()
	if dropped, err = export(root, discovery, keySet); err != nil {
		return nil, fmt.Errorf("publish: export to %q: %w", dir, err)
	}
	return dropped, nil
}

func export(root *os.Root, discovery, keySet []byte) ([]string, error) {
	old, err := readOld(root, discoveryFile)
	if err != nil {
		return nil, err
	}
	if is, want := issuerOf(old), issuerOf(discovery); old != nil && is != want {
		return nil, fmt.Errorf("%s is of issuer %q, not %q: give a directory of its own", discoveryFile, is, want)
	}
	if old, err = readOld(root, keySetFile); err != nil {
		return nil, err
	}
	now := kidsOf(keySet)
	dropped := slices.DeleteFunc(kidsOf(old), func(kid string) bool { return slices.Contains(now, kid) })
	if err := replace(root, keySetFile, keySet); err != nil {
		return nil, err
	}
	return dropped, replace(root, discoveryFile, discovery)
}

// readOld returns nil for a file that is not there.
func readOld(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxDocument))
	return append([]byte{}, data...), err
}

// issuerOf is empty if the document is none.
func issuerOf(discovery []byte) string {
	var doc struct {
		Issuer string `json:"issuer"`
	}
	_ = json.Unmarshal(discovery, &doc)
	return doc.Issuer
}

func kidsOf(keySet []byte) (kids []string) {
	var doc struct {
		Keys []struct {
			ID string `json:"kid"`
		} `json:"keys"`
	}
	_ = json.Unmarshal(keySet, &doc)
	for _, key := range doc.Keys {
		kids = append(kids, key.ID)
	}
	return kids
}

// replace writes a file beside the old one, and gives it its name.
func replace(root *os.Root, name string, data []byte) error {
	dir, base := path.Split(name)
	if err := root.MkdirAll(path.Clean(dir), 0o755); err != nil {
		return err
	}
	sweep(root, path.Clean(dir), base)
	tmp := name + "." + rand.Text() + ".tmp"
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, bytes.NewReader(data))
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		_ = root.Remove(tmp)
	}
	return err
}

// sweep removes what an export that was killed has left. Another one that is
// under way loses its file, and says so.
func sweep(root *os.Root, dir, base string) {
	entries, _ := fs.ReadDir(root.FS(), dir)
	for _, entry := range entries {
		if name := entry.Name(); strings.HasPrefix(name, base+".") && strings.HasSuffix(name, ".tmp") {
			_ = root.Remove(path.Join(dir, name))
		}
	}
}
