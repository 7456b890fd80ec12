package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"github.com/svidecar/svidecar/internal/secret"
)

// display is how much of a bearer value a command prints.
type display struct{ claims, raw bool }

func (d *display) register(fs *pflag.FlagSet, what string) {
	fs.BoolVar(&d.claims, "claims", false, "print the claims, as JSON, instead of a summary")
	fs.BoolVar(&d.raw, "raw", false, "print the "+what+" itself, which is a secret")
}

// check refuses what excludes each other, before anything is asked for.
func (d display) check() error {
	if d.raw && d.claims {
		return errors.New("--raw and --claims exclude each other: give one")
	}
	return nil
}

// print shows the value, its claims or a summary.
func (d display) print(w io.Writer, value secret.Value, summary func(io.Writer) error) error {
	switch {
	case d.raw:
		_, err := fmt.Fprintln(w, value.Reveal())
		return err
	case d.claims:
		return printClaims(w, value.Reveal())
	default:
		return summary(w)
	}
}

// printClaims writes the payload of a compact JWS, unverified.
func printClaims(w io.Writer, token string) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return errors.New("--claims: the token is opaque: it is no JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return errors.New("--claims: the token is opaque: its claims are not base64url")
	}
	var out bytes.Buffer
	if err := json.Indent(&out, payload, "", "  "); err != nil {
		return errors.New("--claims: the token is opaque: its claims are not JSON")
	}
	out.WriteByte('\n')
	_, err = out.WriteTo(w)
	return err
}
