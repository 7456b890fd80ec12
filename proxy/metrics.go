package proxy

import (
	"cmp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/imds"
)

// metrics holds the server's own registry. Counters are looked up once, here,
// so that counting a request hashes no label.
type metrics struct {
	registry *prometheus.Registry
	requests [][]prometheus.Counter // by protocol, then outcome
	duration []prometheus.Observer  // by protocol
	nmi      *nmiMetric             // nil unless Config.NMIMetrics
}

func newMetrics(cfg Config) *metrics {
	version := cmp.Or(cfg.Version, "unknown")
	m := &metrics{registry: prometheus.NewRegistry()}
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "svidecar_requests_total",
		Help: "Requests on the token listener, by protocol and outcome.",
	}, []string{"protocol", "outcome"})
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "svidecar_request_duration_seconds",
		Help:    "Time from a request's headers to the end of its reply, by protocol.",
		Buckets: []float64{.00005, .0001, .00025, .0005, .001, .005, .025, .1, .5, 1, 2.5, 5, 10},
	}, []string{"protocol"})
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "svidecar_build_info", Help: "Always 1; the label tells the version.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m.registry.MustRegister(requests, duration, build, newCollector(cfg.Tokens.Stats, cfg.ClockSkew),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if cfg.NMIMetrics {
		m.nmi = newNMIMetric(cfg)
		m.registry.MustRegister(m.nmi.durations)
	}
	// The first counts what has none: what was refused before its protocol was
	// known, proofs, and what is beside the token.
	for _, p := range append([]imds.Protocol{0}, imds.Protocols()...) {
		var row []prometheus.Counter
		for _, o := range imds.Outcomes() {
			row = append(row, requests.WithLabelValues(p.String(), o.String()))
		}
		m.requests = append(m.requests, row)
		m.duration = append(m.duration, duration.WithLabelValues(p.String()))
	}
	return m
}

func (m *metrics) observe(c *call, took time.Duration) {
	m.requests[c.protocol][c.outcome].Inc()
	m.duration[c.protocol].Observe(took.Seconds())
	if m.nmi != nil {
		m.nmi.observe(c, took)
	}
}

// collector shows the exchange's counts, which are its own.
type collector struct {
	stats    func() exchange.Stats
	rows     []statistic
	skew     func() time.Duration
	ahead    *prometheus.Desc
	autonomy *prometheus.Desc
	success  *prometheus.Desc
}

type statistic struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(exchange.Stats) float64
}

func newCollector(stats func() exchange.Stats, skew func() time.Duration) collector {
	perIdentity := []string{"tenant_id", "client_id"}

	row := func(kind prometheus.ValueType, name, help string, value func(exchange.Stats) float64) statistic {
		return statistic{prometheus.NewDesc("svidecar_"+name, help, nil, nil), kind, value}
	}
	return collector{stats: stats, skew: skew, rows: []statistic{
		row(prometheus.CounterValue, "cache_hits_total", "Token requests answered from the cache.",
			func(s exchange.Stats) float64 { return float64(s.Hits) }),
		row(prometheus.CounterValue, "cache_misses_total", "Token requests that had to wait for an exchange.",
			func(s exchange.Stats) float64 { return float64(s.Misses) }),
		row(prometheus.CounterValue, "exchanges_total", "Exchanges at Entra that ended, well or not.",
			func(s exchange.Stats) float64 { return float64(s.Exchanges) }),
		row(prometheus.CounterValue, "exchange_failures_total", "Exchanges at Entra that failed.",
			func(s exchange.Stats) float64 { return float64(s.Failures) }),
		row(prometheus.GaugeValue, "cache_entries", "Tokens held.",
			func(s exchange.Stats) float64 { return float64(s.Entries) }),
		row(prometheus.GaugeValue, "exchanges_running", "Exchanges under way.",
			func(s exchange.Stats) float64 { return float64(s.Running) }),
		row(prometheus.GaugeValue, "exchanges_waiting", "Exchanges that wait for others to end.",
			func(s exchange.Stats) float64 { return float64(s.Waiting) }),
		row(prometheus.CounterValue, "source_failures_total", "Exchanges that ended before Entra was asked: there was no assertion.",
			func(s exchange.Stats) float64 { return float64(s.SourceFailures) }),
		row(prometheus.CounterValue, "remembered_failures_total", "Token requests answered with a failure that was remembered.",
			func(s exchange.Stats) float64 { return float64(s.Remembered) }),
	},
		ahead: prometheus.NewDesc("svidecar_clock_skew_seconds", "How far Entra's clock is ahead of this machine's, by its last reply.", nil, nil),
		autonomy: prometheus.NewDesc("svidecar_autonomy_seconds",
			"How long the tokens in use last without Entra: the life left of the one that ends first.", perIdentity, nil),
		success: prometheus.NewDesc("svidecar_last_success_timestamp_seconds",
			"When an exchange of the identity last succeeded.", perIdentity, nil),
	}
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, row := range c.rows {
		ch <- row.desc
	}
	ch <- c.ahead
	ch <- c.autonomy
	ch <- c.success
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	stats := c.stats()
	for _, row := range c.rows {
		ch <- prometheus.MustNewConstMetric(row.desc, row.kind, row.value(stats))
	}
	ch <- prometheus.MustNewConstMetric(c.ahead, prometheus.GaugeValue, c.skew().Seconds())
	for _, id := range stats.Identities {
		// Identities that never worked may be names that somebody made up.
		if id.LastSuccess.IsZero() {
			continue
		}
		if id.InUse > 0 {
			ch <- prometheus.MustNewConstMetric(c.autonomy, prometheus.GaugeValue, id.Autonomy.Seconds(), id.Tenant, id.ClientID)
		}
		ch <- prometheus.MustNewConstMetric(c.success, prometheus.GaugeValue, float64(id.LastSuccess.Unix()), id.Tenant, id.ClientID)
	}
}
