package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/svidecar/svidecar/deploy/webhook"
)

const (
	manifests = "../../deploy/manifests"
	chart     = "../../deploy/chart"
)

// kinds are those that the manifests may have.
var kinds = map[string]func() any{
	"Namespace":                        func() any { return new(corev1.Namespace) },
	"ServiceAccount":                   func() any { return new(corev1.ServiceAccount) },
	"Secret":                           func() any { return new(corev1.Secret) },
	"Service":                          func() any { return new(corev1.Service) },
	"Deployment":                       func() any { return new(appsv1.Deployment) },
	"PodDisruptionBudget":              func() any { return new(policyv1.PodDisruptionBudget) },
	"NetworkPolicy":                    func() any { return new(networkingv1.NetworkPolicy) },
	"ClusterRole":                      func() any { return new(rbacv1.ClusterRole) },
	"ClusterRoleBinding":               func() any { return new(rbacv1.ClusterRoleBinding) },
	"Role":                             func() any { return new(rbacv1.Role) },
	"RoleBinding":                      func() any { return new(rbacv1.RoleBinding) },
	"MutatingWebhookConfiguration":     func() any { return new(admissionregistrationv1.MutatingWebhookConfiguration) },
	"ValidatingAdmissionPolicy":        func() any { return new(admissionregistrationv1.ValidatingAdmissionPolicy) },
	"ValidatingAdmissionPolicyBinding": func() any { return new(admissionregistrationv1.ValidatingAdmissionPolicyBinding) },
}

// objects reads all manifests, each as its kind, which must know every field.
func objects(t *testing.T) map[string]any {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(manifests, "*.yaml"))
	if err != nil || len(files) < 2 {
		t.Fatalf("%d files in %s (%v)", len(files), manifests, err)
	}
	all := map[string]any{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
			var item map[string]any
			if err := d.Decode(&item); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			kind, _ := item["kind"].(string)
			if kinds[kind] == nil || all[kind] != nil {
				t.Fatalf("%s: kind %q is unknown here, or there twice", file, kind)
			}
			all[kind] = strict(t, item, kinds[kind]())
		}
	}
	if len(all) != len(kinds) {
		t.Fatalf("%d kinds, want %d", len(all), len(kinds))
	}
	return all
}

func strict(t *testing.T, item map[string]any, to any) any {
	t.Helper()
	raw, err := json.Marshal(item)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		t.Fatalf("%s: %v", item["kind"], err)
	}
	return to
}

func get[T any](t *testing.T) *T {
	t.Helper()
	for _, o := range objects(t) {
		if found, ok := o.(*T); ok {
			return found
		}
	}
	t.Fatal("there is none")
	return nil
}

// TestManifestArguments holds that the Deployment starts: its arguments are parsed
// by the parser that will parse them, and lead to what the manifests make.
func TestManifestArguments(t *testing.T) {
	d := get[appsv1.Deployment](t)
	c := d.Spec.Template.Spec.Containers[0]
	o, err := parsed(c.Args, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := o.webhook
	got := []string{w.Namespace, w.Service, w.Secret, w.Configuration, w.Listen, w.HealthListen, w.MetricsListen, w.Inject.Image}
	ports := map[string]string{}
	for _, p := range c.Ports {
		ports[p.Name] = ":" + itoa(p.ContainerPort)
	}
	sidecar := strings.Replace(c.Image, "svidecar-webhook:", "svidecar:", 1)
	want := []string{d.Namespace, get[corev1.Service](t).Name, get[corev1.Secret](t).Name, get[admissionregistrationv1.MutatingWebhookConfiguration](t).Name,
		ports["webhook"], ports["health"], ports["metrics"], sidecar}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-manifests +arguments):\n%s", diff)
	}
	if target := get[corev1.Service](t).Spec.Ports[0].TargetPort.String(); ":"+target != w.Listen {
		t.Errorf("the Service leads to port %s, and the webhook listens on %s", target, w.Listen)
	}
	if grace := *d.Spec.Template.Spec.TerminationGracePeriodSeconds; float64(grace) < w.ShutdownDelay.Seconds()+30 {
		t.Errorf("%d s of grace are too short for a delay of %v", grace, w.ShutdownDelay)
	}
}

func itoa(n int32) string { return strings.TrimSpace(string(must(json.Marshal(n)))) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestManifestFlags holds that every flag can be set by the chart.
func TestManifestFlags(t *testing.T) {
	template, err := os.ReadFile(filepath.Join(chart, "templates", "deployment.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var passed []string
	for _, m := range regexp.MustCompile(`printf "--([a-z-]+)=`).FindAllSubmatch(template, -1) {
		passed = append(passed, string(m[1]))
	}
	var flags []string
	for line := range strings.Lines(rootCommand().Flags().FlagUsages()) {
		if m := regexp.MustCompile(`--([a-z-]+)`).FindStringSubmatch(line); m != nil && strings.Contains(line, "(env ") {
			flags = append(flags, m[1])
		}
	}
	slices.Sort(passed)
	slices.Sort(flags)
	if diff := cmp.Diff(flags, passed); diff != "" || len(flags) < 20 {
		t.Errorf("(-flags +chart):\n%s", diff)
	}
}

// TestManifestPodSecurity holds that the webhook's own pods pass the strictest
// level, which its namespace enforces.
func TestManifestPodSecurity(t *testing.T) {
	if level := get[corev1.Namespace](t).Labels["pod-security.kubernetes.io/enforce"]; level != "restricted" {
		t.Errorf("the namespace enforces %q", level)
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	d := get[appsv1.Deployment](t)
	template := d.Spec.Template
	for _, res := range evaluator.EvaluatePod(api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}, &template.ObjectMeta, &template.Spec) {
		if !res.Allowed {
			t.Errorf("restricted forbids: %s: %s", res.ForbiddenReason, res.ForbiddenDetail)
		}
	}
	c := template.Spec.Containers[0]
	if !*c.SecurityContext.ReadOnlyRootFilesystem || c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
		t.Errorf("a writable root, or no resources: %+v, %+v", c.SecurityContext, c.Resources)
	}
	if e := c.Env; len(e) != 1 || e[0].Name != "GOMEMLIMIT" || e[0].ValueFrom.ResourceFieldRef.Resource != "limits.memory" {
		t.Errorf("the program does not know its memory limit: %+v", c.Env)
	}
	if *d.Spec.Replicas < 2 || get[policyv1.PodDisruptionBudget](t).Spec.MinAvailable.IntValue() != 1 {
		t.Error("one replica, or a budget that lets all go")
	}
	for key, want := range d.Spec.Selector.MatchLabels {
		if template.Labels[key] != want || get[corev1.Service](t).Spec.Selector[key] != want || get[networkingv1.NetworkPolicy](t).Spec.PodSelector.MatchLabels[key] != want {
			t.Errorf("label %s does not select the webhook's pods everywhere", key)
		}
	}
}

// TestManifestWebhook holds how the API server calls.
func TestManifestWebhook(t *testing.T) {
	cfg := get[admissionregistrationv1.MutatingWebhookConfiguration](t)
	if len(cfg.Webhooks) != 1 {
		t.Fatalf("%d webhooks", len(cfg.Webhooks))
	}
	w := cfg.Webhooks[0]
	svc := get[corev1.Service](t)
	if at := w.ClientConfig.Service; at.Name != svc.Name || at.Namespace != svc.Namespace || *at.Path != webhook.Path || *at.Port != svc.Spec.Ports[0].Port {
		t.Errorf("it calls %v", at)
	}
	if *w.SideEffects != admissionregistrationv1.SideEffectClassNone || *w.ReinvocationPolicy != admissionregistrationv1.IfNeededReinvocationPolicy || *w.TimeoutSeconds > 10 {
		t.Errorf("side effects %v, reinvocation %v, timeout %d s", *w.SideEffects, *w.ReinvocationPolicy, *w.TimeoutSeconds)
	}
	scope := admissionregistrationv1.NamespacedScope
	rules := []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}, Scope: &scope},
	}}
	if diff := cmp.Diff(rules, w.Rules); diff != "" || w.ObjectSelector != nil || *w.MatchPolicy != admissionregistrationv1.Equivalent {
		t.Errorf("it is called by policy %s for objects %v (-want +got):\n%s", *w.MatchPolicy, w.ObjectSelector, diff)
	}
	// Fail without a condition would stop every pod of the cluster with the webhook.
	if *w.FailurePolicy != admissionregistrationv1.Fail || len(w.MatchConditions) != 1 {
		t.Errorf("failure policy %v with %d conditions", *w.FailurePolicy, len(w.MatchConditions))
	}
	if s := w.NamespaceSelector; len(s.MatchExpressions) != 1 || s.MatchExpressions[0].Operator != metav1.LabelSelectorOpNotIn || !slices.Contains(s.MatchExpressions[0].Values, "kube-system") {
		t.Errorf("namespaces %v", s)
	}
	policy, binding := get[admissionregistrationv1.ValidatingAdmissionPolicy](t), get[admissionregistrationv1.ValidatingAdmissionPolicyBinding](t)
	if binding.Spec.PolicyName != policy.Name || binding.Spec.MatchResources != nil || binding.Spec.ParamRef != nil || !slices.Equal(binding.Spec.ValidationActions, []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny}) || *policy.Spec.FailurePolicy != admissionregistrationv1.Fail {
		t.Errorf("policy %s is bound as %+v", policy.Name, binding.Spec)
	}
}
