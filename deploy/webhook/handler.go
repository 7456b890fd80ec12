package webhook

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/svidecar/svidecar/deploy/inject"
	"github.com/svidecar/svidecar/deploy/podidentity"
)

// HandlerConfig is what the answers rest on. Every field but PodIdentity and
// Namespaces is required.
type HandlerConfig struct {
	Inject      inject.Config
	PodIdentity PodIdentity
	Namespaces  labels.Selector // of namespaces in which PodIdentity counts; nil means all
	Cached      client.Reader   // asked first
	Live        client.Reader   // asked about what Cached does not have, which may be a moment behind
	Metrics     *Metrics
	Logger      *slog.Logger
}

// Handler answers the API server, in any number of goroutines.
type Handler struct {
	cfg    HandlerConfig
	rooms  rooms
	review *admission.Webhook // reads and writes reviews, and calls Handle
}

// NewHandler validates the configuration.
func NewHandler(cfg HandlerConfig) (*Handler, error) {
	if cfg.Cached == nil || cfg.Live == nil || cfg.Metrics == nil || cfg.Logger == nil {
		return nil, errors.New("webhook: HandlerConfig wants Cached, Live, Metrics and Logger")
	}
	h := &Handler{cfg: cfg, rooms: newRooms()}
	h.review = &admission.Webhook{
		Handler:        h,
		LogConstructor: func(logr.Logger, *admission.Request) logr.Logger { return logr.FromSlogHandler(cfg.Logger.Handler()) },
	}
	return h, errors.Join(cfg.Inject.Validate(), cfg.PodIdentity.validate())
}

// pod is the little that is read here; deploy/inject reads the rest.
type pod struct {
	Metadata struct {
		Name         string            `json:"name"`
		GenerateName string            `json:"generateName"`
		Annotations  map[string]string `json:"annotations"`
		Labels       map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		ServiceAccountName string `json:"serviceAccountName"`
	} `json:"spec"`
}

// answer is what the API server is told.
type answer struct {
	result   result
	mode     inject.Mode
	patch    []byte
	warnings []string
	err      error // of resultRefused and resultFailed
}

// Handle implements [admission.Handler]: it decides, counts, logs and replies.
func (h *Handler) Handle(ctx context.Context, req admission.Request) admission.Response {
	begin := time.Now()
	var p pod
	a := h.decide(ctx, req, &p)
	took := time.Since(begin)
	h.cfg.Metrics.pods.WithLabelValues(string(a.result)).Inc()
	h.cfg.Metrics.seconds.Observe(took.Seconds())
	h.cfg.Metrics.warnings.Add(float64(len(a.warnings)))
	h.log(ctx, req, p, a, took)
	return a.response()
}

func (h *Handler) decide(ctx context.Context, req admission.Request, p *pod) answer {
	if req.Operation != admissionv1.Create || req.Resource.Resource != "pods" || req.SubResource != "" {
		return answer{result: resultUnchanged}
	}
	if err := checkSize(req.Object.Raw); err != nil {
		return refusal(err)
	}
	if err := json.Unmarshal(req.Object.Raw, p); err != nil {
		return refusal(fmt.Errorf("the pod cannot be read: %w", err))
	}
	if !h.concerns(p) {
		return answer{result: resultUnchanged}
	}
	in, warnings, err := h.surroundings(ctx, req.Namespace, p)
	if errors.As(err, new(boundError)) {
		return refusal(err)
	}
	if err != nil {
		return answer{result: resultFailed, err: err}
	}
	in.Pod = req.Object.Raw
	res, err := h.cfg.Inject.Mutate(in)
	if err != nil {
		return refusal(err)
	}
	a := answer{result: resultUnchanged, mode: res.Mode, patch: res.Patch, warnings: append(warnings, res.Warnings...)}
	switch {
	case res.Injected:
		a.result = resultInjected
	case res.Patch != nil:
		a.result = resultFederated
	}
	return a
}

func refusal(err error) answer { return answer{result: resultRefused, err: err} }

// concerns reports whether a pod has any key that is looked at. Most pods of a
// cluster have none, and cost nothing but this.
func (h *Handler) concerns(p *pod) bool {
	for key := range p.Metadata.Annotations {
		if strings.HasPrefix(key, "svidecar.io/") || strings.HasPrefix(key, "azure.workload.identity/") {
			return true
		}
	}
	for key := range p.Metadata.Labels {
		if strings.HasPrefix(key, "svidecar.io/") { // meant as an annotation
			return true
		}
	}
	_, use := p.Metadata.Labels["azure.workload.identity/use"]
	_, bound := p.Metadata.Labels[podidentity.Label]
	return use || bound && h.cfg.PodIdentity.on()
}

// response gives the reason of a refusal to whoever creates the pod. That the
// webhook failed is a refusal too: the pod asked for an identity, and would
// otherwise start without one, or reach the node's.
func (a answer) response() admission.Response {
	var res admission.Response
	switch a.result {
	case resultRefused:
		return admission.Denied(a.err.Error())
	case resultFailed:
		return admission.Errored(http.StatusInternalServerError, fmt.Errorf("%w: try again; svidecar's webhook has logged it", a.err))
	default:
		res = admission.Allowed("").WithWarnings(a.warnings...)
	}
	res.AuditAnnotations = map[string]string{"result": string(a.result)}
	if a.mode != "" {
		res.AuditAnnotations["mode"] = string(a.mode)
	}
	if a.patch != nil {
		kind := admissionv1.PatchTypeJSONPatch
		res.Patch, res.PatchType = a.patch, &kind
	}
	return res
}

// log writes one line. The patch is not in it: it has the secret by which the
// pod's clients know themselves to its sidecar.
func (h *Handler) log(ctx context.Context, req admission.Request, p pod, a answer, took time.Duration) {
	level := map[result]slog.Level{resultUnchanged: slog.LevelDebug, resultRefused: slog.LevelWarn, resultFailed: slog.LevelError}[a.result]
	if a.result == resultUnchanged && len(a.warnings) > 0 { // which whoever creates a Deployment does not see
		level = slog.LevelWarn
	}
	if !h.cfg.Logger.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("request", string(req.UID)), slog.String("namespace", req.Namespace),
		slog.String("pod", cmp.Or(p.Metadata.Name, p.Metadata.GenerateName)), slog.Bool("dry_run", req.DryRun != nil && *req.DryRun),
		slog.String("result", string(a.result)), slog.String("mode", string(a.mode)), slog.Float64("took_ms", float64(took.Microseconds())/1000),
	}
	if a.err != nil {
		attrs = append(attrs, slog.String("error", a.err.Error()))
	}
	if len(a.warnings) > 0 {
		attrs = append(attrs, slog.Any("warnings", a.warnings))
	}
	h.cfg.Logger.LogAttrs(ctx, level, "pod", attrs...)
}
