package main

import (
	"errors"
	"io/fs"

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
func exportDocuments(dir *keydir.Dir, site string) error {
	keys := dir.Keys()
	discovery, keySet, err := mint.Documents(dir.Issuer(), dir.Documented()...)
	if err != nil {
		return err
	}
	if err := publish.Export(site, discovery, keySet); err != nil {
		return err
	}
	return dir.MarkPublished(kids(keys)...)
}

// readOnly reports whether err only says that we may not write.
func readOnly(err error) bool { return errors.Is(err, fs.ErrPermission) || isReadOnlyFileSystem(err) }
