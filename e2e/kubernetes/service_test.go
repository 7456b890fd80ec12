//go:build e2e && linux

package kubernetes_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/exchange/entratest"
)

// TestWebhookByService holds that the API server calls a webhook by its Service without a kube-proxy, at the address of
// its endpoint: this test's own process, or a pod on the node's network.
func TestWebhookByService(t *testing.T) {
	shared.API(t)
	ns := shared.Namespace(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(refuse))
	l, err := net.Listen("tcp", "10.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	server.Listener = l
	ca, err := entratest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Certificate("example." + ns + ".svc")
	if err != nil {
		t.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	defer server.Close()

	port := l.Addr().(*net.TCPAddr).Port
	applyObjects(t, ns,
		object{"apiVersion": "v1", "kind": "Service", "metadata": object{"name": "example"}, "spec": object{"ports": []object{{"name": "https", "port": 443, "targetPort": port}}}},
		object{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
			"metadata":    object{"name": "example", "labels": object{"kubernetes.io/service-name": "example"}},
			"addressType": "IPv4", "endpoints": []object{{"addresses": []string{"10.0.0.1"}}}, "ports": []object{{"name": "https", "port": port}}},
		object{"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
			"metadata": object{"name": ns}, "webhooks": []object{{
				"name": "refuse.example.com", "admissionReviewVersions": []string{"v1"}, "sideEffects": "None", "failurePolicy": "Fail",
				"namespaceSelector": object{"matchLabels": object{"kubernetes.io/metadata.name": ns}},
				"rules":             []object{{"operations": []string{"CREATE"}, "apiGroups": []string{""}, "apiVersions": []string{"v1"}, "resources": []string{"configmaps"}}},
				"clientConfig":      object{"caBundle": ca.PEM(), "service": object{"namespace": ns, "name": "example", "path": "/"}},
			}}})
	t.Cleanup(func() { shared.Do(t, "delete", "validatingwebhookconfiguration", ns) })
	shared.Eventually(t, func() error { // the API server takes a moment to know a webhook
		_, err := shared.Kubectl(t, "", "create", "configmap", "any", "--namespace", ns, "--dry-run=server")
		if err == nil || !strings.Contains(err.Error(), "refused by the test") {
			return fmt.Errorf("creating a ConfigMap gave %v, want the webhook's refusal", err)
		}
		return nil
	})
}

// refuse is an admission webhook that allows nothing.
func refuse(w http.ResponseWriter, r *http.Request) {
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
		"uid": review.Request.UID, "allowed": false, "status": object{"message": "refused by the test"},
	}})
}
