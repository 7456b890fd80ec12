package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/log"
	crmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/svidecar/svidecar/deploy/webhook"
	"github.com/svidecar/svidecar/internal/version"
)

// run serves until ctx ends.
func (o *options) run(ctx context.Context) error {
	handler := slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: o.logLevel})
	o.webhook.Logger = slog.New(handler)
	leaveRoom()
	logger := logr.FromSlogHandler(handler)
	log.SetLogger(logger)  // controller-runtime and cert-controller
	klog.SetLogger(logger) // client-go
	var err error
	if o.webhook.REST, err = config.GetConfig(); err != nil {
		return fmt.Errorf("finding the API server: %w", err)
	}
	if o.webhook.Metrics, err = webhook.NewMetrics(crmetrics.Registry); err != nil {
		return err
	}
	server, err := webhook.New(o.webhook)
	if err != nil {
		return err
	}
	o.webhook.Logger.LogAttrs(ctx, slog.LevelInfo, "svidecar-webhook", slog.String("version", version.Of(release)))
	return server.Run(ctx)
}

// leaveRoom takes three quarters of GOMEMLIMIT, which the chart sets to the memory
// limit of the container: the kernel counts more there than Go does, the program's
// own text among it, and Go goes past its limit for a moment.
func leaveRoom() {
	if os.Getenv("GOMEMLIMIT") != "" {
		debug.SetMemoryLimit(debug.SetMemoryLimit(-1) / 4 * 3)
	}
}
