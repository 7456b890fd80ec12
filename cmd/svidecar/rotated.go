package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/svidecar/svidecar/internal/config"
	"github.com/svidecar/svidecar/mint"
	"github.com/svidecar/svidecar/mint/keydir"
)

// add makes one source.
func (s *sources) add(src config.Source, cfg *config.Config) error {
	if src.Kind != config.KindLocal || src.KeyDir == "" {
		made, err := newSource(src)
		if err == nil {
			s.byName[src.Name] = made
		}
		return err
	}
	made, kept, err := newRotated(src)
	if err == nil {
		kept.log = newLogger(cfg)
		s.byName[src.Name], s.keepers = made, append(s.keepers, kept)
	}
	return err
}

// newRotated is a source whose keys are in a directory, which knows the issuer.
func newRotated(src config.Source) (*mint.Local, *keeper, error) {
	dir, err := keydir.Open(src.KeyDir)
	if err != nil {
		return nil, nil, err
	}
	if src.Issuer != "" && src.Issuer != dir.Issuer() {
		return nil, nil, fmt.Errorf("issuer %q is not that of the keys in %q, %q: leave the issuer out, or correct the directory", src.Issuer, src.KeyDir, dir.Issuer())
	}
	signer := signerOf(dir, src.UnsafeUnpublished)
	if dir.Keys()[0].State == keydir.Active { // else there may be one later
		if _, err := signer(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
	}
	made, err := mint.NewLocal(mint.LocalConfig{
		Keys: signer, Issuer: dir.Issuer(), Subject: src.Subject, Audience: src.Audience, Lifetime: src.Lifetime,
	})
	return made, &keeper{dir: dir, every: src.RotateEvery}, err
}

// keep tends the directories of keys until ctx ends. The func that it returns
// waits for that.
func (s sources) keep(ctx context.Context) (stopped func()) {
	var running sync.WaitGroup
	for _, k := range s.keepers {
		k.tend(ctx, nil)
		running.Go(func() { k.run(ctx) })
	}
	return running.Wait
}

// signerOf chooses the key that signs.
func signerOf(dir *keydir.Dir, unsafe bool) func() (crypto.Signer, error) {
	if unsafe {
		return dir.UnsafeSigner
	}
	return dir.Signer
}
