//go:build e2e && linux

package kubernetes_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/e2e/kubernetes/cluster"
	"github.com/svidecar/svidecar/exchange/entratest"
)

// envPod is a pod as the env mode of injection shapes it: the app reaches the sidecar by variables, and nothing has a
// privilege.
const envPod = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: orders}
---
apiVersion: v1
kind: Secret
metadata: {name: orders-identity-header}
stringData: {header: 6b1f0c7de6a94f0cb1f4a0d19d0e5a3c}
---
apiVersion: v1
kind: Pod
metadata: {name: orders}
spec:
  serviceAccountName: orders
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  volumes:
  - name: azure-identity-token
    projected: {sources: [{serviceAccountToken: {path: azure-identity-token, audience: "api://AzureADTokenExchange", expirationSeconds: 3600}}]}
  initContainers:
  - name: svidecar
    image: e2e.invalid/svidecar:e2e
    imagePullPolicy: Never
    restartPolicy: Always
    env:
    - {name: AZURE_CLIENT_ID, value: (client)}
    - {name: AZURE_TENANT_ID, value: (tenant)}
    - {name: AZURE_AUTHORITY_HOST, value: "https://127.0.0.1:8443/"}
    - {name: AZURE_FEDERATED_TOKEN_FILE, value: /var/run/secrets/azure/tokens/azure-identity-token}
    - {name: SVIDECAR_AUTHORITY_CA_FILE, value: /etc/entra-ca/ca.pem}
    - {name: SVIDECAR_IDENTITY_HEADER, valueFrom: {secretKeyRef: {name: orders-identity-header, key: header}}}
    startupProbe: {exec: {command: [/svidecar, wait, --timeout=1s]}, timeoutSeconds: 5, periodSeconds: 1, failureThreshold: 60}
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
    volumeMounts:
    - {name: azure-identity-token, mountPath: /var/run/secrets/azure/tokens, readOnly: true}
    - {name: entra-ca, mountPath: /etc/entra-ca, readOnly: true}
  containers:
  - name: app
    image: e2e.invalid/app:e2e
    imagePullPolicy: Never
    env:
    - {name: IDENTITY_ENDPOINT, value: "http://127.0.0.1:8000/msi/token"}
    - {name: IDENTITY_HEADER, valueFrom: {secretKeyRef: {name: orders-identity-header, key: header}}}
    - {name: MSI_ENDPOINT, value: "http://127.0.0.1:8000/msi/token"}
    - {name: MSI_SECRET, valueFrom: {secretKeyRef: {name: orders-identity-header, key: header}}}
    - {name: AZURE_POD_IDENTITY_AUTHORITY_HOST, value: "http://127.0.0.1:8000"}
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
`

// withEntra fills in a manifest of pods, with Entra before their other containers.
func withEntra(manifest string) string {
	indent := strings.NewReplacer("\n", "\n  ")
	return strings.NewReplacer(
		"(client)", clientID, "(tenant)", tenantID,
		"\n  volumes:", "\n  volumes:"+indent.Replace(entraVolumes),
		"\n  initContainers:", "\n  initContainers:"+indent.Replace(entraContainer),
	).Replace(manifest)
}

// TestEnvRefusal holds that a pod of another service account gets no token, and that its app is told why.
func TestEnvRefusal(t *testing.T) {
	shared.Node(t)
	ns := shared.Namespace(t)
	provideEntra(t, ns, federated(clientID, ns, "invoices"))
	shared.Apply(t, ns, withEntra(envPod))
	line := shared.WaitLog(t, ns, "orders", "app", "{")
	if !strings.Contains(line, "AADSTS700213") || !strings.Contains(line, "system:serviceaccount:"+ns+":orders") {
		t.Errorf("the app's first line is %s, want AADSTS700213 and the subject that no credential names", line)
	}
	if calls := entraCalls(t, ns, "orders"); calls.Successes != 0 || len(calls.Assertions) != 0 {
		t.Errorf("Entra granted %d tokens, for %v", calls.Successes, calls.Assertions)
	}
}

// TestEnv holds that an unmodified app in a pod gets the token of its identity, for the service account that the pod
// runs as, where the Pod Security level is restricted.
func TestEnv(t *testing.T) {
	shared.Node(t)
	ns := shared.Namespace(t, "pod-security.kubernetes.io/enforce=restricted")
	provideEntra(t, ns, federated(clientID, ns, "orders"))
	began := time.Now()
	shared.Apply(t, ns, withEntra(envPod))
	shared.WaitReady(t, ns, "pod/orders")
	t.Logf("the pod was ready after %v", time.Since(began).Round(10*time.Millisecond))

	line := shared.WaitLog(t, ns, "orders", "app", "{")
	if want := `{"appid":"` + clientID + `","tid":"` + tenantID + `","aud":"https://vault.azure.net"}`; line != want {
		t.Errorf("the app's first line is %s, want %s", line, want)
	}
	calls := entraCalls(t, ns, "orders")
	a := calls.Assertions[clientID]
	want := entratest.Assertion{Issuer: cluster.Issuer, Subject: "system:serviceaccount:" + ns + ":orders", Audience: audience, KeyID: a.KeyID, Issued: a.Issued, Expires: a.Expires}
	if diff := cmp.Diff(want, a); diff != "" {
		t.Errorf("the assertion (-want +got):\n%s", diff)
	}
	if calls.Successes != 1 {
		t.Errorf("%d tokens were granted, want 1: the others come from memory", calls.Successes)
	}
	if log := shared.Logs(t, ns, "orders", "-c", "svidecar"); strings.Contains(log, "eyJ") {
		t.Error("the sidecar's log holds what looks like a token")
	}
}
