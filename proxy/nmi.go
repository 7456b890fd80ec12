package proxy

import (
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// nmiMetric is the one that aad-pod-identity's NMI counted requests by, for the
// dashboards that look for it. Its labels held what clients wrote: the raw path
// and the resource. Here they are of fixed sets.
type nmiMetric struct {
	durations *prometheus.HistogramVec
	namespace string
	policy    *Policy
}

func newNMIMetric(cfg Config) *nmiMetric {
	return &nmiMetric{namespace: cfg.Namespace, policy: cfg.Policy, durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "aadpodidentity_nmi_operations_duration_seconds",
		Help:    "Time of requests, under the name that aad-pod-identity's NMI gave it.",
		Buckets: []float64{.005, .05, .5, 1, 5, 10, 30, 60, 120, 300, 600, 900, 1200},
	}, []string{"operation_type", "status_code", "namespace", "resource"})}
}

func (n *nmiMetric) observe(c *call, took time.Duration) {
	n.durations.WithLabelValues(operation(c.path), strconv.Itoa(c.sent()), n.namespace, n.policy.listed(c.key.Scope)).Observe(took.Seconds())
}

// operation is the path, if it is one of those that apps ask for.
func operation(path string) string {
	switch {
	case path == imdsPath, path == appServicePath:
		return path
	case path == instancePath, strings.HasPrefix(path, instancePath+"/"):
		return instancePath
	}
	return "other"
}

// listed is the scope's resource as some identity's allowed-resources name it.
func (p *Policy) listed(scope string) string {
	for i := range p.cfg.Identities {
		for _, allowed := range p.cfg.Identities[i].Resources {
			if scope != "" && plain(allowed) == plain(scope) {
				return allowed
			}
		}
	}
	return "other"
}
