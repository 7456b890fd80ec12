package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"

	"github.com/svidecar/svidecar/internal/config"
)

func listenBoth(ctx context.Context, cfg *config.Config) (tokens, ops net.Listener, err error) {
	if tokens, err = listen(ctx, "listen", cfg.Listen); err != nil {
		return nil, nil, err
	}
	if ops, err = listen(ctx, "ops-listen", cfg.OpsListen); err != nil {
		return nil, nil, errors.Join(err, tokens.Close())
	}
	return tokens, ops, nil
}

func listen(ctx context.Context, setting, address string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--%s: cannot listen on %s: %w; stop what uses it, or choose another address", setting, address, cause(err))
	}
	return l, nil
}

// cause cuts the operations that net and http put before an error.
func cause(err error) error {
	var (
		call   *os.SyscallError
		asking *url.Error
	)
	switch {
	case errors.As(err, &call):
		return call.Err
	case errors.As(err, &asking):
		return asking.Err
	}
	return err
}

// warnOfReach says what --unsafe-listen means, at each start.
func (sc *sidecar) warnOfReach(addr net.Addr) {
	if sc.cfg.UnsafeListen {
		sc.log.Warn("unsafe-listen is on: whoever reaches this address can ask for tokens", "tokens", addr.String())
	}
}
