package main

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"

	"github.com/svidecar/svidecar/mint"
	"github.com/svidecar/svidecar/mint/publish"
)

// showKeys writes the key set to where it is wanted.
func showKeys(out io.Writer, issuer, site, output string, files []string, keys []crypto.PublicKey) error {
	switch {
	case site != "" && output != "":
		return errors.New("--export and --output-file exclude each other: give one")
	case site != "" && issuer == "":
		return errors.New("--export: needs --issuer too: the discovery document names it")
	case site != "":
		for _, file := range files {
			if err := apart(file, site); err != nil {
				return fmt.Errorf("--export: %w", err)
			}
		}
		discovery, keySet, err := mint.Documents(issuer, keys...)
		if err != nil {
			return err
		}
		_, err = publish.Export(site, discovery, keySet)
		return err
	}
	keySet, err := mint.KeySet(keys...)
	if err != nil {
		return err
	}
	if output == "" {
		_, err = out.Write(keySet)
		return err
	}
	return overwrite(output, keySet)
}

// overwrite replaces nothing but another key set: the names of the files that keys
// are read from are on the same command line.
func overwrite(path string, keySet []byte) error {
	old, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("--output-file: %w", err)
	case len(old) > 0 && !bytes.HasPrefix(bytes.TrimSpace(old), []byte(`{"keys":`)):
		return fmt.Errorf("--output-file: %q is there and is no key set: give another name", path)
	}
	return os.WriteFile(path, keySet, 0o644)
}

// checkClient is for the issuer's public URL, whose certificate anybody can check.
func checkClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:           http.ProxyFromEnvironment,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}}
}
