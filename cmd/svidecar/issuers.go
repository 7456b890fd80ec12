package main

import (
	"fmt"

	"github.com/svidecar/svidecar/internal/config"
	"github.com/svidecar/svidecar/mint"
)

// newFetcher makes a source of assertions that another issuer makes.
func newFetcher(src config.Source) (*mint.Fetcher, error) {
	switch src.Kind {
	case config.KindGitHub:
		return mint.NewGitHub(mint.GitHubConfig{Audience: src.Audience})
	case config.KindGoogle:
		return mint.NewGoogle(mint.GoogleConfig{Audience: src.Audience, Host: src.MetadataHost})
	case config.KindExec:
		return mint.NewCommand(mint.CommandConfig{Audience: src.Audience, Argv: src.Command, Timeout: src.Timeout})
	case config.KindURL:
		roots, err := rootsWith(src.CAFile)
		if err != nil {
			return nil, fmt.Errorf("certificates for its URL: %w", err)
		}
		return mint.NewURL(mint.URLConfig{
			Audience: src.Audience, URL: src.URL, BearerFile: src.BearerFile, Field: src.Field, Roots: roots,
		})
	}
	panic("svidecar: internal error: no source of kind " + src.Kind)
}
