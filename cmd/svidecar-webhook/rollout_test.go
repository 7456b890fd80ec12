package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestManifestRollout holds that one replica serves at each moment of an upgrade or
// a drain, and that calls go only to those that say they serve.
func TestManifestRollout(t *testing.T) {
	d := get[appsv1.Deployment](t)
	zero, one := intstr.FromInt32(0), intstr.FromInt32(1)
	probe := func(path string, p corev1.Probe) *corev1.Probe {
		p.HTTPGet = &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("health")}
		return &p
	}
	always := policyv1.AlwaysAllow
	c := d.Spec.Template.Spec.Containers[0]
	for _, tt := range []struct {
		name      string
		want, got any
	}{
		{"strategy", appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: &zero, MaxSurge: &one}}, d.Spec.Strategy},
		{"budget", policyv1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: d.Spec.Selector, UnhealthyPodEvictionPolicy: &always}, get[policyv1.PodDisruptionBudget](t).Spec},
		{"startup", probe("/healthz", corev1.Probe{PeriodSeconds: 1, FailureThreshold: 60}), c.StartupProbe},
		{"liveness", probe("/healthz", corev1.Probe{PeriodSeconds: 20}), c.LivenessProbe},
		{"readiness", probe("/readyz", corev1.Probe{PeriodSeconds: 2, FailureThreshold: 2}), c.ReadinessProbe},
	} {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestManifestNetwork holds who may call the webhook's pods, and whom they may.
func TestManifestNetwork(t *testing.T) {
	port := func(n int32) networkingv1.NetworkPolicyPort {
		p := intstr.FromInt32(n)
		return networkingv1.NetworkPolicyPort{Port: &p}
	}
	udp := port(53)
	protocol := corev1.ProtocolUDP
	udp.Protocol = &protocol
	want := networkingv1.NetworkPolicySpec{
		PodSelector: *get[appsv1.Deployment](t).Spec.Selector,
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
		Ingress: []networkingv1.NetworkPolicyIngressRule{
			{Ports: []networkingv1.NetworkPolicyPort{port(9443)}}, // alone, so that networkPolicy.webhookFrom narrows nothing else
			{Ports: []networkingv1.NetworkPolicyPort{port(8081)}},
			{Ports: []networkingv1.NetworkPolicyPort{port(8080)}, From: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}}}},
		},
		Egress: []networkingv1.NetworkPolicyEgressRule{
			{Ports: []networkingv1.NetworkPolicyPort{port(443), port(6443)}},
			{Ports: []networkingv1.NetworkPolicyPort{udp, port(53)}},
		},
	}
	if diff := cmp.Diff(want, get[networkingv1.NetworkPolicy](t).Spec); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
