package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"

	"github.com/svidecar/svidecar/mint"
	"github.com/svidecar/svidecar/mint/keydir"
	"github.com/svidecar/svidecar/mint/publish"
)

// kids names keys.
func kids(keys []keydir.Key) (ids []string) {
	for _, key := range keys {
		ids = append(ids, key.ID)
	}
	return ids
}

// exportDocuments writes the documents, and then takes their keys for published.
// It returns the kids that were in the key set there and are not now.
func exportDocuments(ctx context.Context, dir *keydir.Dir, site string) (dropped []string, err error) {
	if err := apart(dir.Path(), site); err != nil {
		return nil, err
	}
	err = dir.Publish(ctx, func(keys []keydir.Key) error {
		discovery, keySet, err := mint.Documents(dir.Issuer(), publicOf(keys)...)
		if err != nil {
			return err
		}
		dropped, err = publish.Export(site, discovery, keySet)
		return err
	})
	return dropped, err
}

// apart refuses to export into the directory of keys, above it, or below it: what
// is exported is uploaded as a whole.
func apart(keys, site string) error {
	a, b := resolved(keys), resolved(site)
	if within(a, b) || within(b, a) {
		return fmt.Errorf("%q and %q share a directory, and private keys would be uploaded along: give a directory of its own", site, keys)
	}
	return nil
}

func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// resolved is the path without links, as far as it exists.
func resolved(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if real, err := filepath.EvalSymlinks(path); err == nil || path == filepath.Dir(path) {
		return cmp.Or(real, path)
	}
	return filepath.Join(resolved(filepath.Dir(path)), filepath.Base(path))
}
