package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/svidecar/svidecar/internal/config"
	"github.com/svidecar/svidecar/mint/keydir"
)

func keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Make and rotate the signing keys of an issuer of one's own",
		Long: `Keep the signing keys of an issuer in a directory. A key is made, then published
with the issuer's key set, signs once everybody who keeps a copy of the key set
has had time to fetch it anew, retires when the next one signs, and leaves the
key set when its last assertion has ended. Time moves keys through these states;
only making and publishing them is left to you, or to "svidecar issuer".`,
		Example: `  svidecar keys init --key-dir keys --issuer https://issuer.example.com
  svidecar keys export --key-dir keys site
  svidecar keys list --key-dir keys`,
	}
	cmd.AddCommand(keysInitCommand(), keysListCommand(), keysRotateCommand(), keysRetireCommand(), keysExportCommand())
	return cmd
}

var errNoKeyDir = errors.New("--key-dir: it is missing: name the directory of keys, as in --key-dir keys")

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
