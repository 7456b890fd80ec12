// Package webhook owns the tests of the admission webhook, its chart and its manifests against a real API server. It
// never runs a pod: the webhook runs beside the API server, with the rights and the arguments that the manifests give it.
//
// Its tests need what those of e2e/kubernetes need: make e2e.
package webhook
