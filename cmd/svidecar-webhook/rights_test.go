package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// TestManifestRights holds the webhook's rights to a list, so that one more shows
// in a diff, and holds that they are given to its service account alone.
func TestManifestRights(t *testing.T) {
	const own, group = "svidecar-webhook", "rbac.authorization.k8s.io"
	read := []string{"get", "list", "watch"}
	cluster := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"namespaces", "serviceaccounts"}, Verbs: read},
		{APIGroups: []string{"admissionregistration.k8s.io"}, Resources: []string{"mutatingwebhookconfigurations"}, Verbs: read},
		{APIGroups: []string{"admissionregistration.k8s.io"}, Resources: []string{"mutatingwebhookconfigurations"}, ResourceNames: []string{own}, Verbs: []string{"update"}},
	}
	inside := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: read},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{own}, Verbs: []string{"update"}},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"create"}},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: []string{own}, Verbs: []string{"get", "update"}},
		{APIGroups: []string{"", "events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
	}
	account, namespace := get[corev1.ServiceAccount](t), get[corev1.Namespace](t).Name
	clusterRole, role := get[rbacv1.ClusterRole](t), get[rbacv1.Role](t)
	everywhere, here := get[rbacv1.ClusterRoleBinding](t), get[rbacv1.RoleBinding](t)
	subjects := []rbacv1.Subject{{Kind: "ServiceAccount", Name: own, Namespace: namespace}}
	for _, tt := range []struct {
		name      string
		want, got any
	}{
		{"rights in the cluster", cluster, clusterRole.Rules},
		{"rights taken from other roles", (*rbacv1.AggregationRule)(nil), clusterRole.AggregationRule},
		{"rights in its namespace", inside, role.Rules},
		{"role in the cluster", rbacv1.RoleRef{APIGroup: group, Kind: "ClusterRole", Name: own}, everywhere.RoleRef},
		{"role in its namespace", rbacv1.RoleRef{APIGroup: group, Kind: "Role", Name: own}, here.RoleRef},
		{"who has it in the cluster", subjects, everywhere.Subjects},
		{"who has it in its namespace", subjects, here.Subjects},
		{"names", []string{own, own, own, own}, []string{clusterRole.Name, role.Name, account.Name, get[appsv1.Deployment](t).Spec.Template.Spec.ServiceAccountName}},
		{"namespaces", []string{namespace, namespace, namespace}, []string{role.Namespace, here.Namespace, account.Namespace}},
	} {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
