package webhook_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"github.com/svidecar/svidecar/deploy/inject"
	"github.com/svidecar/svidecar/deploy/webhook"
)

func settings(t *testing.T) webhook.Config {
	t.Helper()
	metrics, err := webhook.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return webhook.Config{
		REST: &rest.Config{Host: "https://127.0.0.1:1"}, Metrics: metrics, Logger: slog.New(slog.DiscardHandler),
		Inject:    inject.Config{Image: "svidecar:v1"},
		Namespace: "system", Service: "webhook", Secret: "webhook", Configuration: "webhook",
	}
}

func TestNewRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*webhook.Config)
		want   string
	}{
		{"no API server", func(c *webhook.Config) { c.REST = nil }, "REST"},
		{"no metrics", func(c *webhook.Config) { c.Metrics = nil }, "Metrics"},
		{"no logger", func(c *webhook.Config) { c.Logger = nil }, "Logger"},
		{"no image", func(c *webhook.Config) { c.Inject.Image = "" }, "Image"},
		{"unknown pod identity", func(c *webhook.Config) { c.PodIdentity = "standard" }, "none, cluster, namespaced"},
		{"no label selector", func(c *webhook.Config) { c.PodIdentityNamespaces = "a=b=c" }, "PodIdentityNamespaces"},
		{"no namespace", func(c *webhook.Config) { c.Namespace = "" }, "Namespace"},
		{"no service", func(c *webhook.Config) { c.Service = "" }, "Service"},
		{"no secret", func(c *webhook.Config) { c.Secret = "" }, "Secret"},
		{"no configuration", func(c *webhook.Config) { c.Configuration = "" }, "Configuration"},
		{"address without port", func(c *webhook.Config) { c.Listen = "127.0.0.1" }, "Listen"},
		{"address of health", func(c *webhook.Config) { c.HealthListen = "8081" }, "HealthListen"},
		{"address of metrics", func(c *webhook.Config) { c.MetricsListen = ":metrics!" }, "MetricsListen"},
		{"negative delay", func(c *webhook.Config) { c.ShutdownDelay = -1 }, "ShutdownDelay"},
		{"long delay", func(c *webhook.Config) { c.ShutdownDelay = time.Hour }, "ShutdownDelay"},
	} {
		cfg := settings(t)
		tt.change(&cfg)
		if _, err := webhook.New(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: New: %v, want an error with %q", tt.name, err, tt.want)
		}
	}
	if _, err := webhook.New(settings(t)); err != nil {
		t.Errorf("New: %v", err)
	}
}

func TestNewHandlerRefuses(t *testing.T) {
	if _, err := webhook.NewHandler(webhook.HandlerConfig{}); err == nil || !strings.Contains(err.Error(), "Cached") {
		t.Errorf("NewHandler: %v", err)
	}
}

func TestMetricsOnce(t *testing.T) {
	registry := prometheus.NewRegistry()
	if _, err := webhook.NewMetrics(registry); err != nil {
		t.Fatal(err)
	}
	if _, err := webhook.NewMetrics(registry); err == nil {
		t.Error("the same metrics were registered twice")
	}
	if _, err := webhook.NewMetrics(nil); err == nil {
		t.Error("no registry was taken for one")
	}
}
