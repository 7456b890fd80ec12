package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/svidecar/svidecar/internal/secret"
	"github.com/svidecar/svidecar/mint"
	"github.com/svidecar/svidecar/mint/workloadapi"
)

// workloadFlags are those of the SPIFFE Workload API.
type workloadFlags struct {
	socket     string
	identities []string
}

func (f *workloadFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.socket, "workload-api", "", "`address` of a SPIFFE Workload API to serve too, such as unix:///run/svidecar/api.sock")
	fs.StringSliceVar(&f.identities, "workload-identities", nil, "who gets which SPIFFE ID there: `UID=ID`, separated by commas; if not given, --subject is everybody's")
}

// workloadAPI listens, and returns what serves; nil if none is wanted.
func (is *issuing) workloadAPI() (func(context.Context) error, error) {
	f := is.flags.workload
	if f.socket == "" {
		if len(f.identities) > 0 {
			return nil, errors.New("--workload-identities: needs --workload-api too: add it")
		}
		return nil, nil
	}
	identities, err := f.parse(is.cfg.Subject)
	if err != nil {
		return nil, err
	}
	server, err := workloadapi.New(workloadapi.Config{
		Mint:       is.mint,
		Keys:       is.dir.Documented,
		Identities: identities,
		Issuer:     is.dir.Issuer(),
		Fault:      (&complaint{log: is.log}).tell,
	})
	if err != nil {
		return nil, err
	}
	// Any user may connect: what each may have is said by the identities, and
	// the folder that the socket lies in narrows it further.
	l, err := workloadapi.Listen(f.socket, 0o777)
	if err != nil {
		return nil, fmt.Errorf("--workload-api: %w", err)
	}
	is.log.Info("serving the SPIFFE Workload API", "socket", f.socket, "identities", len(identities))
	is.refresh = server.Refresh
	return func(ctx context.Context) error { return server.Serve(ctx, l) }, nil
}

// parse reads the identities, or makes subject everybody's.
func (f workloadFlags) parse(subject string) (identities []workloadapi.Identity, err error) {
	if len(f.identities) == 0 {
		if strings.Contains(subject, "{{") {
			return nil, fmt.Errorf("--subject: %q: variables are for serve: write the SPIFFE ID out", subject)
		}
		id, err := spiffeid.FromString(subject)
		if err != nil {
			return nil, fmt.Errorf("--subject: %q: %w: --workload-api needs the SPIFFE ID that programs get, or --workload-identities", subject, err)
		}
		return []workloadapi.Identity{{ID: id}}, nil
	}
	if subject != "" {
		return nil, errors.New("--subject: contradicts --workload-identities, which say who gets which SPIFFE ID: remove one of them")
	}
	for _, entry := range f.identities {
		name, text, _ := strings.Cut(entry, "=")
		uid, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("--workload-identities: %q: write UID=ID, as in 1000=spiffe://example.com/app", entry)
		}
		id, err := spiffeid.FromString(text)
		if err != nil {
			return nil, fmt.Errorf("--workload-identities: %q: %w", entry, err)
		}
		of := int(uid)
		identities = append(identities, workloadapi.Identity{ID: id, UID: &of})
	}
	return identities, nil
}

// mint signs for one subject and audience; the server keeps what it returns.
func (is *issuing) mint(ctx context.Context, subject spiffeid.ID, audience string) (secret.Value, error) {
	source, err := mint.NewLocal(mint.LocalConfig{
		Keys: signerOf(is.dir, is.cfg.UnsafeUnpublished), Issuer: is.dir.Issuer(), Subject: subject.String(),
		Audience: audience, Lifetime: is.cfg.AssertionLifetime,
	})
	if err != nil {
		return secret.Value{}, err
	}
	assertion, err := source.Assertion(ctx)
	return assertion.Value, err
}
