// Package cluster owns a Kubernetes cluster of one node for the end-to-end tests: etcd, the control plane, a kubelet,
// containerd and runc, all real, in namespaces of their own. It never lets a packet out: the node and its pods have the
// loopback link only. And it leaves nothing behind: when the tests end, however they end, the kernel ends everything
// that they started.
//
// A test binary hands its TestMain over to [Main], which builds what [Config] names and runs the binary once more inside:
//
//	var c *cluster.Cluster
//
//	func TestMain(m *testing.M) {
//		cfg := cluster.Config{Images: []cluster.Image{{Name: "svidecar"}}}
//		os.Exit(cluster.Main(cfg, func(started *cluster.Cluster) int { c = started; return m.Run() }))
//	}
//
// A test then begins with c.API(t) if an API server is all that it needs (ready in about 4 s, once for the binary: for
// webhooks, and for manifests by --dry-run=server), or with c.Node(t) if pods must run (about 10 s, once). Both skip or
// fail the test, by SVIDECAR_E2E_ALLOW_SKIP, where there can be no cluster.
//
//	c.Node(t)
//	ns := c.Namespace(t)
//	c.Apply(t, ns, manifest)
//	c.WaitReady(t, ns, "pod/app")
//	c.Logs(t, ns, "app", "-c", "svidecar")
//
// What is different from a node that people run:
//
//   - A pod has an address, and a default route, on its own loopback link. Nothing outside of the pod reaches it, and it
//     reaches nothing outside: not the API server, no other pod, no DNS. Probes must be of the exec kind. What the pod
//     talks to runs in the pod.
//   - A pod with hostNetwork shares the node's link, on which the API server is 127.0.0.1:6443: a webhook may be one. The API server
//     calls a Service at its endpoints, so no kube-proxy is needed.
//   - Images are those of Config, under [Ref]; imagePullPolicy must be Never or IfNotPresent.
//   - The issuer of service account tokens is [Issuer], which no resolver knows: its documents come from Documents.
//
// It needs Linux, root, containerd, runc, iproute2 and util-linux, and the build tag e2e.
package cluster
