package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/svidecar/svidecar/deploy/inject"
	"github.com/svidecar/svidecar/deploy/webhook"
)

const (
	tenant  = "22222222-2222-2222-2222-222222222222"
	clientA = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"
	clientB = "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb"
	secret  = "PODSECRETPODSECRETPODSECRE"
)

// world is what a handler sees of a cluster, and what it leaves behind.
type world struct {
	cached, live client.Reader
	podIdentity  webhook.PodIdentity
	namespaces   string
	log          bytes.Buffer
	registry     *prometheus.Registry
}

func (w *world) handler(t *testing.T) *webhook.Handler {
	t.Helper()
	w.registry = prometheus.NewRegistry()
	metrics, err := webhook.NewMetrics(w.registry)
	if err != nil {
		t.Fatal(err)
	}
	namespaces, err := labels.Parse(w.namespaces)
	if err != nil {
		t.Fatal(err)
	}
	h, err := webhook.NewHandler(webhook.HandlerConfig{
		Inject:      inject.Config{Image: "svidecar:v1", NativeSidecars: true, TenantID: tenant, NewSecret: func() string { return secret }},
		PodIdentity: w.podIdentity, Namespaces: namespaces, Cached: w.cached, Live: w.live, Metrics: metrics,
		Logger: slog.New(slog.NewJSONHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// counts are the samples of svidecar_webhook_pods_total above zero.
func (w *world) counts(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if n := m.GetCounter().GetValue(); f.GetName() == "svidecar_webhook_pods_total" && n > 0 {
				got[m.GetLabel()[0].GetValue()] = n
			}
		}
	}
	return got
}

func reader(objects ...client.Object) client.Reader {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		panic(err)
	}
	for _, kind := range []string{"AzureIdentity", "AzureIdentityBinding", "AzurePodIdentityException"} {
		gvk := group.WithKind(kind)
		scheme.AddKnownTypeWithName(gvk, &unstructured.Unstructured{})
		scheme.AddKnownTypeWithName(group.WithKind(kind+"List"), &unstructured.UnstructuredList{})
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
}

var group = schema.GroupVersion{Group: "aadpodidentity.k8s.io", Version: "v1"}

func namespace(labels ...string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team", Labels: pairs(labels)}}
}

func account(name string, annotations ...string) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "team", Annotations: pairs(annotations)}}
}

func custom(kind, name string, spec map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "aadpodidentity.k8s.io/v1", "kind": kind, "metadata": map[string]any{"name": name, "namespace": "team"}, "spec": spec,
	}}
}

func identity(name, clientID string) client.Object {
	return custom("AzureIdentity", name, map[string]any{"type": int64(0), "clientID": clientID,
		"resourceID": "/subscriptions/33333333-3333-3333-3333-333333333333/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + name})
}

func binding(name, to, selector string) client.Object {
	return custom("AzureIdentityBinding", name, map[string]any{"azureIdentity": to, "selector": selector})
}

func pairs(list []string) map[string]string {
	m := map[string]string{}
	for i := 0; i+1 < len(list); i += 2 {
		m[list[i]] = list[i+1]
	}
	return m
}

// request is what the API server sends of a pod with a field that nobody knows.
func request(t testing.TB, annotations, labels map[string]string) admission.Request {
	t.Helper()
	raw, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"generateName": "web-", "annotations": annotations, "labels": labels},
		"spec":     map[string]any{"serviceAccountName": "orders", "containers": []any{map[string]any{"name": "app", "image": "app:v1"}}, "fromTomorrow": true},
	})
	if err != nil {
		t.Fatal(err)
	}
	return admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		UID: "r1", Operation: admissionv1.Create, Namespace: "team", Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
		Object: runtime.RawExtension{Raw: raw},
	}}
}

var errDown = errors.New("the API server is away")

// down is a reader that reaches nobody.
type down struct{}

func (down) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return errDown
}
func (down) List(context.Context, client.ObjectList, ...client.ListOption) error { return errDown }

// never ends the test if it is asked.
type never struct{ t *testing.T }

func (n never) Get(_ context.Context, key client.ObjectKey, _ client.Object, _ ...client.GetOption) error {
	n.t.Errorf("%v was looked up", key)
	return errDown
}

func (n never) List(context.Context, client.ObjectList, ...client.ListOption) error {
	n.t.Error("a list was asked for")
	return errDown
}

func TestHandlerRefuses(t *testing.T) {
	on := map[string]string{"svidecar.io/inject": "true"}
	whole := reader(namespace(), account("orders"))
	for _, tt := range []struct {
		name         string
		annotations  map[string]string
		labels       map[string]string
		cached, live client.Reader
		code         int32
		result       string
		want         []string
	}{
		{"annotation", map[string]string{"svidecar.io/inject": "yes"}, nil, never{t}, nil, http.StatusForbidden, "refused", []string{"svidecar.io/inject", `"yes"`, "true or false"}},
		{"mode that the namespace forbids", map[string]string{"svidecar.io/inject": "true", "svidecar.io/mode": "redirect"}, nil,
			reader(namespace("pod-security.kubernetes.io/enforce", "baseline"), account("orders")), nil, http.StatusForbidden, "refused", []string{"NET_ADMIN", "baseline"}},
		{"API server away", on, nil, down{}, nil, http.StatusInternalServerError, "failed", []string{"Namespace /team", "away", "try again"}},
		{"namespace that nobody knows", on, nil, reader(), reader(), http.StatusInternalServerError, "failed", []string{"Namespace /team", "not found"}},
		{"account that cannot be had", on, nil, reader(namespace()), down{}, http.StatusInternalServerError, "failed", []string{"ServiceAccount team/orders", "away"}},
		{"binding without identity", nil, map[string]string{"aadpodidbinding": "x"}, reader(namespace(), account("orders"), binding("b", "gone", "x")), reader(binding("b", "gone", "x")),
			http.StatusForbidden, "refused", []string{"aadpodidbinding", "team/b", `"gone"`}},
		{"bindings that cannot be had", nil, map[string]string{"aadpodidbinding": "x"}, whole, down{}, http.StatusInternalServerError, "failed", []string{"AzureIdentity", "away"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.live == nil {
				tt.live = never{t}
			}
			w := &world{cached: tt.cached, live: tt.live, podIdentity: webhook.PodIdentityCluster}
			res := w.handler(t).Handle(t.Context(), request(t, tt.annotations, tt.labels))
			if res.Allowed || res.Result.Code != tt.code || res.Patch != nil {
				t.Errorf("allowed %v, code %d, patch %s; want a refusal with %d", res.Allowed, res.Result.Code, res.Patch, tt.code)
			}
			for _, want := range tt.want {
				if !strings.Contains(res.Result.Message, want) || strings.Contains(res.Result.Message, "\n") {
					t.Errorf("message %q, want one line with %q", res.Result.Message, want)
				}
			}
			if diff := cmp.Diff(map[string]float64{tt.result: 1}, w.counts(t)); diff != "" {
				t.Errorf("counted (-want +got):\n%s", diff)
			}
			if !strings.Contains(w.log.String(), `"result":"`+tt.result+`"`) || !strings.Contains(w.log.String(), `"error":`) {
				t.Errorf("logged %s", w.log.String())
			}
		})
	}
}

func TestHandler(t *testing.T) {
	on := map[string]string{"svidecar.io/inject": "true", "svidecar.io/mode": "env"}
	whole := reader(namespace(), account("orders", "azure.workload.identity/client-id", clientA))
	bound := []client.Object{namespace(), account("orders"), identity("orders", clientB), binding("b", "orders", "x")}
	for _, tt := range []struct {
		name         string
		annotations  map[string]string
		labels       map[string]string
		cached, live client.Reader // nil where nobody may ask
		podIdentity  webhook.PodIdentity
		namespaces   string // where it counts
		result, mode string
		inPatch      []string
		warnings     int
	}{
		{name: "nothing asked", annotations: map[string]string{"other.example/svidecar.io": "true"}, labels: map[string]string{"app": "web", "aadpodidbinding": "x"}, result: "unchanged"},
		{name: "no metadata", result: "unchanged"},
		{name: "refused by the user", annotations: map[string]string{"svidecar.io/inject": "false"}, result: "unchanged"},
		{name: "refused by the user, where the API server is away", annotations: map[string]string{"svidecar.io/inject": "false"}, cached: down{}, live: down{}, result: "unchanged"},
		{name: "refused by the user, as for azure-workload-identity", annotations: map[string]string{"azure.workload.identity/inject-proxy-sidecar": "false"}, cached: down{}, live: down{}, result: "unchanged"},
		{name: "refused by the user, where a binding is broken", annotations: map[string]string{"svidecar.io/inject": "false"}, labels: map[string]string{"aadpodidbinding": "x"}, podIdentity: webhook.PodIdentityCluster,
			cached: reader(namespace(), account("orders"), binding("b", "gone", "x")), live: reader(binding("b", "gone", "x")), result: "unchanged"},
		{name: "refused by the user, and federated", annotations: map[string]string{"svidecar.io/inject": "false"}, labels: map[string]string{"azure.workload.identity/use": "true"}, cached: whole, result: "federated", inPatch: []string{clientA}},
		{name: "identity of the account", annotations: on, cached: whole, result: "injected", mode: "env", inPatch: []string{clientA, secret}},
		{name: "identity of an account that is new", annotations: on, cached: reader(namespace()), live: whole, result: "injected", mode: "env", inPatch: []string{clientA}},
		{name: "namespace that is new", annotations: on, cached: reader(), live: whole, result: "injected", mode: "env", inPatch: []string{clientA}},
		{name: "account that nobody knows", annotations: on, cached: reader(namespace()), live: reader(), result: "injected", mode: "env", warnings: 1},
		{name: "auto in a namespace that allows little", annotations: map[string]string{"svidecar.io/inject": "true"}, cached: reader(namespace("pod-security.kubernetes.io/enforce", "restricted"), account("orders")), result: "injected", mode: "env", warnings: 2},
		{name: "auto where all is allowed", annotations: map[string]string{"svidecar.io/inject": "true"}, cached: whole, result: "injected", mode: "redirect"},
		{name: "federation", labels: map[string]string{"azure.workload.identity/use": "true"}, cached: whole, result: "federated", inPatch: []string{clientA}},
		{name: "warning", annotations: map[string]string{"svidecar.io/inject": "true", "svidecar.io/mode": "env", "svidecar.io/skip-containers": "nobody"}, cached: whole, result: "injected", mode: "env", warnings: 1},
		{name: "bound", labels: map[string]string{"aadpodidbinding": "x"}, podIdentity: webhook.PodIdentityCluster, cached: reader(bound...), result: "injected", mode: "redirect", inPatch: []string{clientB}},
		{name: "bound, in a namespace that is chosen", labels: map[string]string{"aadpodidbinding": "x"}, podIdentity: webhook.PodIdentityCluster, namespaces: "!left", cached: reader(bound...), result: "injected", mode: "redirect", inPatch: []string{clientB}},
		{name: "bound, in a namespace that is not", labels: map[string]string{"aadpodidbinding": "x"}, podIdentity: webhook.PodIdentityCluster, namespaces: "migrated=true", cached: reader(bound...), result: "unchanged"},
		{name: "bound a moment ago", labels: map[string]string{"aadpodidbinding": "x"}, podIdentity: webhook.PodIdentityNamespaced, cached: reader(namespace(), account("orders"), binding("b", "orders", "x")), live: reader(bound...), result: "injected", mode: "redirect", inPatch: []string{clientB}},
		{name: "bound by nothing", labels: map[string]string{"aadpodidbinding": "y"}, podIdentity: webhook.PodIdentityCluster, cached: reader(bound...), live: reader(bound...), result: "unchanged", warnings: 1},
		{name: "beside an object that is malformed", labels: map[string]string{"aadpodidbinding": "x"}, podIdentity: webhook.PodIdentityCluster,
			cached: reader(append([]client.Object{custom("AzureIdentity", "bad", map[string]any{"type": "zero"})}, bound...)...), result: "injected", mode: "redirect"},
		{name: "asked for, with pod identity and no label", annotations: on, podIdentity: webhook.PodIdentityCluster, cached: whole, result: "injected", mode: "env"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, r := range []*client.Reader{&tt.cached, &tt.live} {
				if *r == nil {
					*r = never{t}
				}
			}
			w := &world{cached: tt.cached, live: tt.live, podIdentity: tt.podIdentity, namespaces: tt.namespaces}
			res := w.handler(t).Handle(t.Context(), request(t, tt.annotations, tt.labels))
			if !res.Allowed || res.AuditAnnotations["result"] != tt.result || res.AuditAnnotations["mode"] != tt.mode {
				t.Errorf("allowed %v, %v, %v; want %s, mode %q", res.Allowed, res.Result, res.AuditAnnotations, tt.result, tt.mode)
			}
			if patched := tt.result != "unchanged"; patched != (res.Patch != nil) || patched != (res.PatchType != nil && *res.PatchType == admissionv1.PatchTypeJSONPatch) {
				t.Errorf("patch %s of type %v", res.Patch, res.PatchType)
			}
			for _, want := range tt.inPatch {
				if !strings.Contains(string(res.Patch), want) {
					t.Errorf("the patch has no %s: %s", want, res.Patch)
				}
			}
			if len(res.Warnings) != tt.warnings || tt.warnings > 0 && !strings.HasPrefix(res.Warnings[0], "svidecar: ") {
				t.Errorf("warnings %q, want %d", res.Warnings, tt.warnings)
			}
			if diff := cmp.Diff(map[string]float64{tt.result: 1}, w.counts(t)); diff != "" {
				t.Errorf("counted (-want +got):\n%s", diff)
			}
			if log := w.log.String(); strings.Contains(log, secret) || !strings.Contains(log, `"pod":"web-"`) {
				t.Errorf("the log has the pod's secret, or not its name: %s", log)
			}
		})
	}
}

// TestHandlerLeavesOthersAlone holds that nothing but the creation of a pod is
// looked at, whatever the configuration sends.
func TestHandlerLeavesOthersAlone(t *testing.T) {
	for name, change := range map[string]func(*admission.Request){
		"update":      func(r *admission.Request) { r.Operation = admissionv1.Update },
		"subresource": func(r *admission.Request) { r.SubResource = "ephemeralcontainers" },
		"deployment":  func(r *admission.Request) { r.Resource.Resource = "deployments" },
	} {
		req := request(t, map[string]string{"svidecar.io/inject": "true"}, nil)
		change(&req)
		w := &world{cached: never{t}, live: never{t}}
		if res := w.handler(t).Handle(t.Context(), req); !res.Allowed || res.Patch != nil {
			t.Errorf("%s: allowed %v, patch %s", name, res.Allowed, res.Patch)
		}
	}
}

func TestHandlerRefusesWhatIsNoPod(t *testing.T) {
	req := request(t, nil, nil)
	req.Object.Raw = []byte(`{"metadata": []}`)
	w := &world{cached: never{t}, live: never{t}}
	if res := w.handler(t).Handle(t.Context(), req); res.Allowed || !strings.Contains(res.Result.Message, "cannot be read") {
		t.Errorf("allowed %v: %v", res.Allowed, res.Result)
	}
}

// BenchmarkHandler is the time of one answer: of a pod that asks for the sidecar,
// and of one that does not.
func BenchmarkHandler(b *testing.B) {
	metrics, err := webhook.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	cached := reader(namespace(), account("orders", "azure.workload.identity/client-id", clientA))
	h, err := webhook.NewHandler(webhook.HandlerConfig{
		Inject: inject.Config{Image: "svidecar:v1", NativeSidecars: true, TenantID: tenant},
		Cached: cached, Live: cached, Metrics: metrics, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	for name, annotations := range map[string]map[string]string{"asked": {"svidecar.io/inject": "true"}, "not asked": {"other.example/key": "value"}} {
		b.Run(name, func(b *testing.B) {
			req := request(b, annotations, nil)
			for b.Loop() {
				if res := h.Handle(b.Context(), req); !res.Allowed {
					b.Fatal(res.Result)
				}
			}
		})
	}
}
