package webhook

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/svidecar/svidecar/deploy/inject"
	"github.com/svidecar/svidecar/deploy/podidentity"
)

// PodIdentity says which bindings of aad-pod-identity count.
type PodIdentity string

// The choices.
const (
	PodIdentityNone       PodIdentity = "none"
	PodIdentityCluster    PodIdentity = "cluster"    // those of all namespaces, as in its standard mode
	PodIdentityNamespaced PodIdentity = "namespaced" // those of the pod's own
)

func (p PodIdentity) on() bool { return p == PodIdentityCluster || p == PodIdentityNamespaced }

func (p PodIdentity) validate() error {
	if p == "" || p == PodIdentityNone || p.on() {
		return nil
	}
	return fmt.Errorf("webhook: pod identity %q is none of %s, %s, %s", p, PodIdentityNone, PodIdentityCluster, PodIdentityNamespaced)
}

// podIdentityKinds are the kinds whose objects are read.
var podIdentityKinds = []string{podidentity.KindIdentity, podidentity.KindBinding, podidentity.KindException}

// boundError is why identities that are bound to a pod cannot be used.
type boundError struct{ error }

// surroundings looks up what a pod does not say itself.
func (h *Handler) surroundings(ctx context.Context, namespace string, p *pod) (in inject.Input, warnings []string, err error) {
	in.Namespace = namespace
	if inject.Alone(p.Metadata.Annotations, p.Metadata.Labels) {
		return in, nil, nil
	}
	ns, err := h.metadata(ctx, "Namespace", client.ObjectKey{Name: namespace})
	if err != nil {
		return in, nil, err
	}
	// An account that is not there is refused by the API server.
	account, err := h.metadata(ctx, "ServiceAccount", client.ObjectKey{Namespace: namespace, Name: cmp.Or(p.Spec.ServiceAccountName, "default")})
	if err != nil && !apierrors.IsNotFound(err) {
		return in, nil, err
	}
	in.NamespaceLabels, in.ServiceAccountAnnotations = ns.Labels, account.Annotations
	if !h.cfg.PodIdentity.on() || h.cfg.Namespaces != nil && !h.cfg.Namespaces.Matches(labels.Set(ns.Labels)) {
		return in, nil, nil
	}
	in.Identities, warnings, err = h.bound(ctx, podidentity.Pod{Namespace: namespace, Labels: p.Metadata.Labels})
	return in, warnings, err
}

// metadata reads an object's labels and annotations. Who makes an account and a
// pod in one go may be faster than the cache.
func (h *Handler) metadata(ctx context.Context, kind string, key client.ObjectKey) (metav1.ObjectMeta, error) {
	object := partial(kind)
	err := h.cfg.Cached.Get(ctx, key, object)
	if apierrors.IsNotFound(err) {
		err = h.cfg.Live.Get(ctx, key, object)
	}
	if err != nil {
		return metav1.ObjectMeta{}, fmt.Errorf("looking up %s %s: %w", kind, key, err)
	}
	return object.ObjectMeta, nil
}

// partial is an object without its body, which is neither sent nor kept.
func partial(kind string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: kind}}
}

// bound finds the identities that aad-pod-identity's objects bind to a pod. What
// the cache cannot make sense of may be whole at the API server.
func (h *Handler) bound(ctx context.Context, p podidentity.Pod) ([]inject.Identity, []string, error) {
	if p.Labels[podidentity.Label] == "" {
		return nil, nil, nil
	}
	var res podidentity.Result
	for _, reader := range []client.Reader{h.cfg.Cached, h.cfg.Live} {
		objects, err := h.readObjects(ctx, reader)
		if err != nil {
			return nil, nil, err
		}
		res, err = objects.Resolve(p, h.cfg.PodIdentity == PodIdentityNamespaced)
		switch {
		case err == nil && (res.Excepted || len(res.Identities) > 0):
			return res.Identities, prefixed(res.Warnings), nil
		case err != nil && reader == h.cfg.Live:
			return nil, nil, boundError{err}
		}
	}
	return nil, prefixed(res.Warnings), nil
}

func prefixed(warnings []string) []string {
	out := slices.Clone(warnings)
	for i := range out {
		out[i] = "svidecar: " + out[i]
	}
	return out
}

func kindOf(kind string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: podidentity.Group, Version: podidentity.Version, Kind: kind}
}

// readObjects leaves out what cannot be read: whoever may write one namespace's
// objects must not decide about other namespaces' pods.
func (h *Handler) readObjects(ctx context.Context, reader client.Reader) (podidentity.Objects, error) {
	var all podidentity.Objects
	for _, kind := range podIdentityKinds {
		var list unstructured.UnstructuredList
		list.SetGroupVersionKind(kindOf(kind + "List"))
		if err := reader.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
			return all, fmt.Errorf("listing %s: %w", kind, err)
		}
		for _, item := range list.Items {
			object := item.Object
			if object["kind"] == nil { // a list's items need not say it
				object = map[string]any{"kind": kind, "metadata": object["metadata"], "spec": object["spec"]}
			}
			if err := all.Add(object); err != nil {
				h.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "object left out", slog.String("error", err.Error()))
			}
		}
	}
	return all, nil
}
