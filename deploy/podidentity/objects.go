package podidentity

import (
	"encoding/json"
	"fmt"
)

// Group and Version are those of the objects; Label is the pods' label that a
// binding's selector names.
const (
	Group   = "aadpodidentity.k8s.io"
	Version = "v1"
	Label   = "aadpodidbinding"
)

// The kinds.
const (
	KindIdentity  = "AzureIdentity"
	KindBinding   = "AzureIdentityBinding"
	KindException = "AzurePodIdentityException"
)

// metadata is what of an object's metadata counts.
type metadata struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace"`
	Annotations map[string]string `json:"annotations"`
}

func (m metadata) String() string { return m.Namespace + "/" + m.Name }

type identity struct {
	Metadata metadata `json:"metadata"`
	Spec     struct {
		Type               int      `json:"type"`
		ResourceID         string   `json:"resourceID"`
		ClientID           string   `json:"clientID"`
		TenantID           string   `json:"tenantID"`
		AuxiliaryTenantIDs []string `json:"auxiliaryTenantIDs"`
		ADEndpoint         string   `json:"adEndpoint"`
	} `json:"spec"`
}

type binding struct {
	Metadata metadata `json:"metadata"`
	Spec     struct {
		AzureIdentity string `json:"azureIdentity"`
		Selector      string `json:"selector"`
	} `json:"spec"`
}

type exception struct {
	Metadata metadata `json:"metadata"`
	Spec     struct {
		PodLabels map[string]string `json:"podLabels"`
	} `json:"spec"`
}

// Objects are those of a cluster. The zero value has none.
type Objects struct {
	identities []identity
	bindings   []binding
	exceptions []exception
}

// Add reads one object as the API server gives it. Before version 1.6 of
// aad-pod-identity the fields began with capitals; encoding/json takes either.
func (o *Objects) Add(object map[string]any) error {
	switch kind := object["kind"]; kind {
	case KindIdentity:
		return add(&o.identities, object)
	case KindBinding:
		return add(&o.bindings, object)
	case KindException:
		return add(&o.exceptions, object)
	default:
		return fmt.Errorf("podidentity: kind %q is none of %s, %s, %s", kind, KindIdentity, KindBinding, KindException)
	}
}

func add[T any](to *[]T, object map[string]any) error {
	raw, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("podidentity: %s: %w", object["kind"], err)
	}
	var one T
	if err := json.Unmarshal(raw, &one); err != nil {
		var named struct{ Metadata metadata }
		_ = json.Unmarshal(raw, &named) // for the name alone
		return fmt.Errorf("podidentity: %s %v: %w", object["kind"], named.Metadata, err)
	}
	*to = append(*to, one)
	return nil
}
