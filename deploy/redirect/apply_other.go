//go:build !linux

package redirect

import (
	"context"
	"fmt"
	"runtime"
)

func errSystem() error {
	return fmt.Errorf("redirect: %w", errOtherSystem())
}

func errOtherSystem() error {
	return fmt.Errorf("there is no redirection on %s: run this in Linux, or point the app at the sidecar by IDENTITY_ENDPOINT", runtime.GOOS)
}

// Apply works on Linux only.
func (p *Plan) Apply(context.Context) error { return errSystem() }

// Check works on Linux only.
func (p *Plan) Check(context.Context) error { return errSystem() }

// Remove works on Linux only.
func (p *Plan) Remove(context.Context) error { return errSystem() }

func (p *Plan) refuseMachine() error { return errOtherSystem() }
