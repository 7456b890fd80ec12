package webhook

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// result is what became of a pod: a label value.
type result string

const (
	resultInjected  result = "injected"  // it has the sidecar
	resultFederated result = "federated" // it has a token and variables, and no sidecar
	resultUnchanged result = "unchanged"
	resultRefused   result = "refused" // by what it asks for
	resultFailed    result = "failed"  // the webhook could not find out what it needs
)

var results = []result{resultInjected, resultFederated, resultUnchanged, resultRefused, resultFailed}

// Metrics count what the webhook does. Safe for concurrent use.
type Metrics struct {
	pods     *prometheus.CounterVec
	seconds  prometheus.Histogram
	warnings prometheus.Counter
	expiry   prometheus.Gauge
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(registry prometheus.Registerer) (*Metrics, error) {
	if registry == nil {
		return nil, errors.New("webhook: NewMetrics wants a registry")
	}
	m := &Metrics{
		pods: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "svidecar_webhook_pods_total",
			Help: "Pods that were admitted or refused, by result: injected, federated, unchanged, refused, failed.",
		}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "svidecar_webhook_duration_seconds",
			Help:    "Time in which an answer about a pod was found.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .5, 1, 5},
		}),
		warnings: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "svidecar_webhook_warnings_total",
			Help: "Warnings about pods that were admitted, which the log has too.",
		}),
		expiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "svidecar_webhook_certificate_expiry_timestamp_seconds",
			Help: "End of the certificate that is served to the API server, in Unix time; 0 before there is one.",
		}),
	}
	for _, r := range results { // so that a rate has a beginning
		m.pods.WithLabelValues(string(r))
	}
	for _, c := range []prometheus.Collector{m.pods, m.seconds, m.warnings, m.expiry} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("webhook: registering metrics: %w", err)
		}
	}
	return m, nil
}
