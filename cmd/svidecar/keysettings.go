package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/svidecar/svidecar/internal/config"
	"github.com/svidecar/svidecar/mint/keydir"
)

var errNoKeyDir = errors.New("--key-dir: it is missing: name the directory of keys, as in --key-dir keys")

// wants is the one argument of a command, and what it is.
func wants(name, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%s: %d arguments, want one: %s", name, len(args), what)
		}
		return nil
	}
}

// registerKeys defines the settings that each command on keys has.
func registerKeys(cmd *cobra.Command, more ...string) {
	config.Register(cmd.Flags(), append([]string{"key-dir"}, more...)...)
}

// loadKeys reads those settings.
func loadKeys(cmd *cobra.Command) (*config.Config, error) {
	cfg, err := config.LoadPart(cmd.Flags(), os.Environ())
	if err == nil && cfg.KeyDir == "" {
		err = errNoKeyDir
	}
	return cfg, err
}

func openKeys(cmd *cobra.Command) (*keydir.Dir, error) {
	cfg, err := loadKeys(cmd)
	if err != nil {
		return nil, err
	}
	return keydir.Open(cfg.KeyDir)
}
