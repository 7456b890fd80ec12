//go:build e2e && linux

package webhook_test

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/svidecar/svidecar/exchange/entratest"
)

// startFloor registers the least webhook that there can be, for pods with the label floor: a Go server that answers
// with one patch whatever it is asked, which makes of a pod what ours has made of it. What it adds to a pod's creation
// is what the API server, TLS and Go cost.
func startFloor(t *testing.T, ns string, asking []byte) {
	t.Helper()
	var done struct {
		Metadata struct{ Annotations object }
		Spec     object
	}
	client := apiClient(t)
	if err := json.Unmarshal(post(t, client, podsURL(ns), asking), &done); err != nil {
		t.Fatal(err)
	}
	delete(done.Metadata.Annotations, "svidecar.io/inject")
	patch := marshal(t, []object{
		{"op": "replace", "path": "/spec", "value": done.Spec},
		{"op": "add", "path": "/metadata/annotations", "value": done.Metadata.Annotations},
	})
	server, authority := startTLS(t, func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Request struct {
				UID string `json:"uid"`
			} `json:"request"`
		}
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(object{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": object{
			"uid": review.Request.UID, "allowed": true, "patchType": "JSONPatch", "patch": patch,
		}})
	})
	shared.Apply(t, "", string(marshal(t, object{
		"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": object{"name": "floor"},
		"webhooks": []object{{
			"name": "floor.example.com", "admissionReviewVersions": []string{"v1"}, "sideEffects": "None", "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded",
			"objectSelector": object{"matchLabels": object{"floor": "true"}},
			"rules":          []object{{"operations": []string{"CREATE"}, "apiGroups": []string{""}, "apiVersions": []string{"v1"}, "resources": []string{"pods"}}},
			"clientConfig":   object{"caBundle": authority, "url": server},
		}},
	})))
	t.Cleanup(func() { shared.Do(t, "delete", "mutatingwebhookconfiguration", "floor") })
	wait(t, "the floor's webhook", func() error {
		var p struct {
			Spec struct{ InitContainers []object }
		}
		if err := json.Unmarshal(post(t, client, podsURL(ns), body(t, "", `floor: "true"`)), &p); err != nil {
			return err
		}
		if len(p.Spec.InitContainers) != 3 {
			return errNoSidecar
		}
		return nil
	})
}

func startTLS(t *testing.T, h http.HandlerFunc) (url string, authority []byte) {
	t.Helper()
	ca, err := entratest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Certificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL, ca.PEM()
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
