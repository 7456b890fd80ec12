package mint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/svidecar/svidecar/internal/secret"
)

const (
	maxFileBytes        = 64 << 10         // of an assertion file, white space included
	defaultStartupGrace = 60 * time.Second // see FileConfig
	maxStartupGrace     = time.Hour
	notBeforeLeeway     = 60 * time.Second // our clock may be this far behind the issuer's
)

// FileConfig configures [NewFile].
type FileConfig struct {
	// Path is the assertion file, as AZURE_FEDERATED_TOKEN_FILE names it.
	// Required. It need not exist yet.
	Path string

	// StartupGrace is how long after NewFile an absent or empty file counts as
	// one that may still appear (see [Error.Temporary]). 0 to 1 h; zero means 60 s.
	StartupGrace time.Duration
}

// File is a source of assertions that something else writes and renews: kubelet
// for a projected service-account token, spiffe-helper for a JWT-SVID. It holds
// nothing between calls, and is safe for concurrent use.
type File struct {
	path       string
	grace      time.Duration
	graceUntil time.Time
}

// NewFile checks cfg. It does not touch the file.
func NewFile(cfg FileConfig) (*File, error) {
	if cfg.Path == "" {
		return nil, errors.New("mint: FileConfig.Path is required")
	}
	if cfg.StartupGrace < 0 || cfg.StartupGrace > maxStartupGrace {
		return nil, fmt.Errorf("mint: FileConfig.StartupGrace %v is not between 0 and %v", cfg.StartupGrace, maxStartupGrace)
	}
	grace := cfg.StartupGrace
	if grace == 0 {
		grace = defaultStartupGrace
	}
	return &File{path: cfg.Path, grace: grace, graceUntil: time.Now().Add(grace)}, nil
}

// Assertion reads the file anew, since its owner replaces it, and returns what
// it holds without surrounding white space. It reads at most 64 KiB, from a
// regular file only (symbolic links are followed), and waits for nothing.
//
// A refusal is an [*Error]; one for a context that is done matches its cause.
func (f *File) Assertion(ctx context.Context) (Assertion, error) {
	if ctx.Err() != nil {
		return Assertion{}, fmt.Errorf("mint: assertion file %q: %w", f.path, context.Cause(ctx))
	}
	data, _, err := readRegular(f.path, maxFileBytes)
	if err != nil {
		return Assertion{}, f.unreadable(err)
	}
	raw := string(bytes.TrimSpace(data))
	if raw == "" {
		return Assertion{}, f.absent("empty", malformed("empty"))
	}
	claims, err := parse(raw)
	if err != nil {
		return Assertion{}, f.refuse(Claims{}, err, false, err.Error(),
			"it should hold one JWT and nothing else: check that the path names the token file and not another file of the volume")
	}
	if err := f.untimely(claims, time.Now()); err != nil {
		return Assertion{}, err
	}
	return Assertion{Value: secret.New(raw), Claims: claims}, nil
}

// unreadable explains err, which readRegular returned.
func (f *File) unreadable(err error) *Error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f.absent("missing", err)
	case errors.Is(err, fs.ErrPermission):
		return f.refuse(Claims{}, err, false, "permission denied",
			"make it readable by the user that svidecar runs as: in a pod, set securityContext.fsGroup")
	case errors.Is(err, errNotRegular):
		return f.refuse(Claims{}, err, false, "not a regular file",
			"name the token file itself, not its directory, a pipe or a device")
	case errors.Is(err, errTooLarge):
		return f.refuse(Claims{}, malformed(err.Error()), false, "larger than 64 KiB",
			"check that the path names a token file")
	}
	return f.refuse(Claims{}, err, true, pathCause(err),
		"check the path and the volume that holds it")
}

// absent is for a file that its owner may be about to write.
func (f *File) absent(problem string, cause error) *Error {
	const advice = "check the path, and that the pod mounts a projected serviceAccountToken volume there (or that whatever writes the file runs)"
	if time.Now().Before(f.graceUntil) {
		return f.refuse(Claims{}, cause, true, problem,
			fmt.Sprintf("it may still appear within %v of the start; if it does not, %s", f.grace, advice))
	}
	return f.refuse(Claims{}, cause, false, problem, advice)
}

// untimely returns an error unless now lies within the claims' validity.
func (f *File) untimely(c Claims, now time.Time) error {
	switch {
	case c.Expiry.IsZero():
		return f.refuse(c, malformed("no exp claim"), false, fmt.Sprintf("no exp claim (%v)", c),
			"an assertion must end: replace a token copied from a Secret by a projected serviceAccountToken volume")
	case !now.Add(lastUse).Before(c.Expiry):
		return f.refuse(c, ErrExpired, true, fmt.Sprintf("%s (%v)", expired(now.Sub(c.Expiry)), c),
			"kubelet rotates this file; check that the volume is a projected serviceAccountToken (not a copy, and not mounted by subPath, which is never renewed) and that this machine's clock is right")
	case now.Add(notBeforeLeeway).Before(c.NotBefore):
		return f.refuse(c, ErrNotYetValid, true,
			fmt.Sprintf("not valid before %s, in %v (%v)", shownTime(c.NotBefore), c.NotBefore.Sub(now).Round(time.Second), c),
			"check that the clocks of this machine and of the issuer agree")
	}
	return nil
}

// expired says when. A token that would end on the way to Entra counts too.
func expired(ago time.Duration) string {
	if ago < 0 {
		return fmt.Sprintf("expires in %v, too soon to reach Entra", -ago.Round(time.Second))
	}
	return fmt.Sprintf("expired %v ago", ago.Round(time.Second))
}

func (f *File) refuse(c Claims, cause error, temporary bool, problem, advice string) *Error {
	return &Error{
		Path:      f.path,
		Claims:    c,
		text:      fmt.Sprintf("mint: assertion file %q: %s; %s", f.path, problem, advice),
		temporary: temporary,
		cause:     cause,
	}
}

// pathCause is the text of err without the path that the message names anyway.
func pathCause(err error) string {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	return foreignText(err)
}
