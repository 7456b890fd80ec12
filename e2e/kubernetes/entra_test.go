//go:build e2e && linux

package kubernetes_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"testing"

	"github.com/svidecar/svidecar/e2e/kubernetes/cluster"
	"github.com/svidecar/svidecar/exchange/entratest"
)

const (
	tenantID = "7f9f2b1e-53c4-4b0e-8f4e-0c2d6a1b9e11"
	clientID = "2d1c6a52-0d4b-4f0a-9a63-5b7e8c3f4d22"
	audience = "api://AzureADTokenExchange"

	// entraHost is where a pod's Entra is, and entraCA is the file of the authority to trust for it, where the volume
	// entra-ca is mounted.
	entraHost = "https://127.0.0.1:8443/"
	entraCA   = "/etc/entra-ca/ca.pem"

	// entraVolumes and entraContainer go into a pod's spec, the container as its first init container: what provideEntra
	// has made stands ready for them.
	entraVolumes = `
- {name: entra, secret: {secretName: entra}}
- {name: entra-ca, configMap: {name: entra-ca}}`
	entraContainer = `
- name: entra
  image: e2e.invalid/entra:e2e
  imagePullPolicy: Never
  restartPolicy: Always
  startupProbe: {exec: {command: [/entra, GET, /calls]}, periodSeconds: 1, failureThreshold: 60, timeoutSeconds: 5}
  securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
  volumeMounts: [{name: entra, mountPath: /etc/entra, readOnly: true}]`
)

// federated is an identity that trusts one service account of the cluster.
func federated(client, namespace, account string) entratest.App {
	return entratest.App{ClientID: client, TenantID: tenantID, Credentials: []entratest.FederatedCredential{{
		Issuer: cluster.Issuer, Subject: "system:serviceaccount:" + namespace + ":" + account, Audience: audience,
	}}}
}

type object = map[string]any

// provideEntra makes what a pod with entraContainer mounts: the apps, the issuer's documents, and a certificate.
func provideEntra(t *testing.T, namespace string, apps ...entratest.App) {
	t.Helper()
	discovery, keys := shared.Documents(t)
	ca, err := entratest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Certificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	var chain bytes.Buffer
	for _, der := range cert.Certificate {
		if err := pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			t.Fatal(err)
		}
	}
	applyObjects(t, namespace,
		object{"apiVersion": "v1", "kind": "Secret", "metadata": object{"name": "entra"}, "stringData": object{
			"apps.json": string(marshal(t, apps)), "discovery.json": discovery, "keys.json": keys,
			"tls.crt": chain.String(), "tls.key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
		}},
		object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": "entra-ca"}, "data": object{"ca.pem": string(ca.PEM()), "ca.crt": string(ca.PEM())}})
}

func applyObjects(t *testing.T, namespace string, items ...object) {
	t.Helper()
	shared.Apply(t, namespace, string(marshal(t, object{"apiVersion": "v1", "kind": "List", "items": items})))
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// seen is what a pod's Entra was asked, by its controls.
type seen struct {
	Successes  int                            `json:"successes"`
	Scopes     map[string]int                 `json:"scopes"`
	Refusals   map[string]int                 `json:"refusals"`
	Assertions map[string]entratest.Assertion `json:"assertions"`
}

func entraCalls(t *testing.T, namespace, pod string) seen {
	t.Helper()
	s, err := askEntra(t, namespace, pod)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// askEntra is entraCalls where Entra may not run yet.
func askEntra(t *testing.T, namespace, pod string) (s seen, err error) {
	t.Helper()
	out, err := shared.Exec(t, namespace, pod, "entra", "/entra", "GET", "/calls")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return s, fmt.Errorf("%w in %s", err, out)
	}
	return s, nil
}
