// Package podidentity owns what aad-pod-identity's objects say about a pod: which
// identities are bound to it, by the rules by which its controller assigned them.
// It never reads a cluster; its caller hands it the objects.
package podidentity

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/svidecar/svidecar/deploy/inject"
)

// Pod is what of a pod decides.
type Pod struct {
	Namespace string
	Labels    map[string]string
}

// Result is what is bound to a pod.
type Result struct {
	// Identities are in the order of their bindings' namespaces and names. A
	// single one is the default.
	Identities []inject.Identity
	// Warnings are for whoever creates the pod, one line each.
	Warnings []string
	// Excepted says that an AzurePodIdentityException names the pod.
	Excepted bool
}

// Resolve finds the identities of a pod. Bindings of all namespaces count, as in
// aad-pod-identity's standard mode, or with namespaced only those of the pod's.
//
// An error is one line for whoever creates the pod: something is bound to it, in
// its own namespace, that svidecar cannot stand in for; or nothing of what is bound
// to it from others can be used, and without a sidecar it may reach the node's
// identity.
func (o Objects) Resolve(p Pod, namespaced bool) (Result, error) {
	selector, labelled := p.Labels[Label]
	if !labelled || selector == "" {
		return Result{}, nil
	}
	if name, excepted := o.excepts(p); excepted {
		return Result{Excepted: true, Warnings: []string{fmt.Sprintf(
			"%s %s names the pod, so it gets no sidecar, whatever its label %s says", KindException, name, Label)}}, nil
	}
	r := resolution{objects: o, pod: p, namespaced: namespaced}
	bound := r.matching(selector)
	if len(bound) == 0 {
		return Result{Warnings: []string{fmt.Sprintf("label %s: %q is the selector of no %s, so it binds no identity to the pod", Label, selector, KindBinding)}}, nil
	}
	for _, b := range bound {
		err := r.take(b)
		if err != nil && b.Metadata.Namespace == p.Namespace {
			return Result{}, err
		}
		if err != nil { // whoever may write there must not decide whether this pod starts
			r.warnf("%v; it is of another namespace: it is left out", err)
		}
	}
	if len(r.Identities) == 0 {
		return Result{}, fmt.Errorf("label %s: %q: no identity that is bound to it may be used in namespace %s: %s", Label, selector, p.Namespace, strings.Join(r.Warnings, "; "))
	}
	r.settleDefault()
	return r.Result, nil
}

// excepts names the exception that a pod falls under: one of its own namespace
// with any label of the pod, whose value counts without regard to case.
func (o Objects) excepts(p Pod) (name string, excepted bool) {
	for _, e := range o.exceptions {
		if e.Metadata.Namespace != p.Namespace {
			continue
		}
		for key, value := range e.Spec.PodLabels {
			if have, ok := p.Labels[key]; ok && strings.EqualFold(have, value) {
				return e.Metadata.String(), true
			}
		}
	}
	return "", false
}

// resolution is the work on one pod.
type resolution struct {
	Result
	objects    Objects
	pod        Pod
	namespaced bool
	taken      map[string]identity // by name
}

func (r *resolution) warnf(format string, args ...any) {
	r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...))
}

// matching gives the bindings of a selector, in their order.
func (r *resolution) matching(selector string) []binding {
	var bound []binding
	for _, b := range r.objects.bindings {
		if b.Spec.Selector == selector && (!r.namespaced || b.Metadata.Namespace == r.pod.Namespace) {
			bound = append(bound, b)
		}
	}
	slices.SortFunc(bound, func(a, b binding) int {
		return cmp.Or(cmp.Compare(a.Metadata.Namespace, b.Metadata.Namespace), cmp.Compare(a.Metadata.Name, b.Metadata.Name))
	})
	return bound
}

// behavior marks, by its value namespaced, an identity for pods of its own
// namespace alone.
const behavior = Group + "/Behavior"

// take adds the identity that a binding names, which is one of its own
// namespace. Of two with one name the first counts.
func (r *resolution) take(b binding) error {
	at := slices.IndexFunc(r.objects.identities, func(id identity) bool {
		return id.Metadata.Namespace == b.Metadata.Namespace && id.Metadata.Name == b.Spec.AzureIdentity
	})
	if at < 0 {
		return fmt.Errorf("%s %v is bound to the pod by label %s and names %s %q, which is not in its namespace: create it, or delete the binding", KindBinding, b.Metadata, Label, KindIdentity, b.Spec.AzureIdentity)
	}
	id := r.objects.identities[at]
	if strings.EqualFold(id.Metadata.Annotations[behavior], "namespaced") && id.Metadata.Namespace != r.pod.Namespace {
		r.warnf("%s %v is for pods of its own namespace only (annotation %s): it is left out", KindIdentity, id.Metadata, behavior)
		return nil
	}
	if first, ok := r.taken[id.Metadata.Name]; ok {
		if first.Metadata.Namespace != id.Metadata.Namespace {
			r.warnf("%s %v and %v have one name: the first counts, as for aad-pod-identity", KindIdentity, first.Metadata, id.Metadata)
		}
		return nil
	}
	return r.add(id)
}

func (r *resolution) add(id identity) error {
	if err := id.check(); err != nil {
		return fmt.Errorf("%s %v, which is bound to the pod by label %s: %w", KindIdentity, id.Metadata, Label, err)
	}
	if id.Metadata.Namespace != r.pod.Namespace {
		r.warnf("%s %v is bound from another namespace: whoever may write bindings there gives this pod identities", KindIdentity, id.Metadata)
	}
	if len(id.Spec.AuxiliaryTenantIDs) > 0 {
		r.warnf("%s %v has auxiliaryTenantIDs, which are left out: list an identity for each tenant in annotation svidecar.io/identities", KindIdentity, id.Metadata)
	}
	if id.Spec.ADEndpoint != "" {
		r.warnf("%s %v has an adEndpoint, which is left out: the installation's authority host counts", KindIdentity, id.Metadata)
	}
	if r.taken == nil {
		r.taken = map[string]identity{}
	}
	r.taken[id.Metadata.Name] = id
	for _, other := range r.Identities {
		if strings.EqualFold(other.ClientID, id.Spec.ClientID) {
			return nil // two objects for one identity
		}
	}
	r.Identities = append(r.Identities, inject.Identity{ClientID: id.Spec.ClientID, TenantID: id.Spec.TenantID, ResourceID: id.Spec.ResourceID})
	return nil
}

func (r *resolution) settleDefault() {
	if len(r.Identities) == 1 {
		r.Identities[0].Default = true
	}
}

// resourceID is that of a user-assigned identity, without regard to case.
var resourceID = regexp.MustCompile(`(?i)^/subscriptions/[^/]+/resourcegroups/[^/]+/providers/Microsoft\.ManagedIdentity/userAssignedIdentities/[^/]+$`)

// The types of AzureIdentity.
const (
	typeUserAssigned = 0
	typeSecret       = 1
	typeCertificate  = 2
)

func (id identity) check() error {
	switch id.Spec.Type {
	case typeUserAssigned:
	case typeSecret, typeCertificate:
		return fmt.Errorf("it has type %d, a service principal with a secret of its own: federate the application, and name it in annotation svidecar.io/client-id instead of the label", id.Spec.Type)
	default:
		return fmt.Errorf("it has type %d: it may be 0, a user-assigned identity", id.Spec.Type)
	}
	if !resourceID.MatchString(id.Spec.ResourceID) {
		return fmt.Errorf("its resourceID %q is not that of a user-assigned identity: /subscriptions/…/resourcegroups/…/providers/Microsoft.ManagedIdentity/userAssignedIdentities/…", id.Spec.ResourceID)
	}
	if id.Spec.ClientID == "" {
		return errors.New("it has no clientID: add that of the identity")
	}
	if len(id.Spec.ClientID) != len(uuid.Nil.String()) || uuid.Validate(id.Spec.ClientID) != nil {
		return fmt.Errorf("its clientID %q is no GUID", id.Spec.ClientID)
	}
	return nil
}
