//go:build e2e && linux

package cluster

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

const containerdSocket = "/run/e2e-containerd/containerd.sock"

// startNode starts what runs pods: the controllers, the scheduler, containerd with the images, and the kubelet.
func (c *Cluster) startNode() error {
	if err := c.startContainerd(); err != nil {
		return err
	}
	if err := c.importImages(); err != nil {
		return err
	}
	if _, err := c.spawn("kube-controller-manager", "--kubeconfig="+c.path("controller-manager.kubeconfig"), "--leader-elect=false",
		"--bind-address=127.0.0.1", "--use-service-account-credentials", "--root-ca-file="+c.Authority(),
		"--service-account-private-key-file="+c.path("pki", "issuer.key"),
		"--cluster-signing-cert-file="+c.Authority(), "--cluster-signing-key-file="+c.path("pki", "ca.key"),
		"--controllers=*,-node-ipam-controller,-node-route-controller,-cloud-node-lifecycle-controller,-ttl-controller"); err != nil {
		return err
	}
	if _, err := c.spawn("kube-scheduler", "--kubeconfig="+c.path("scheduler.kubeconfig"), "--leader-elect=false", "--bind-address=127.0.0.1"); err != nil {
		return err
	}
	return c.startKubelet()
}

const containerdConfig = `version = 2
root = %[1]q
state = "/run/e2e-containerd"
oom_score = 0
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = %[2]q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %[3]q
  restrict_oom_score_adj = true # without CAP_SYS_RESOURCE no process may become less likely to be killed
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %[4]q
    conf_dir = %[5]q
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = %[6]q
        SystemdCgroup = false
`

func (c *Cluster) startContainerd() error {
	runc, err := exec.LookPath("runc")
	if err != nil {
		return err
	}
	if _, err := c.write("cni/10-e2e.conflist", `{"cniVersion":"0.4.0","name":"e2e","plugins":[{"type":"podlo"}]}`); err != nil {
		return err
	}
	config, err := c.write("containerd.toml", fmt.Sprintf(containerdConfig, c.path("containerd"), containerdSocket, Ref(pause), c.path("cnibin"), c.path("cni"), runc))
	if err != nil {
		return err
	}
	containerd, err := c.spawn("containerd", "--config", config)
	if err != nil {
		return err
	}
	return containerd.await(func() error {
		conn, err := net.Dial("unix", containerdSocket)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

// importImages gives containerd the images that were built outside.
func (c *Cluster) importImages() error {
	archives, err := fs.Glob(os.DirFS(c.dir), "images/*.tar")
	if err != nil {
		return err
	}
	for _, name := range archives {
		if err := run("ctr", "--address", containerdSocket, "--namespace", "k8s.io", "images", "import", filepath.Join(c.dir, name)); err != nil {
			return err
		}
	}
	return nil
}

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
port: 10250
readOnlyPort: 0
healthzPort: 10248
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: %[1]q}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: %[2]q
failCgroupV1: false # it is what some machines have
failSwapOn: false
containerRuntimeEndpoint: unix://%[3]s
resolvConf: ""
syncFrequency: 2s
nodeStatusUpdateFrequency: 2s
oomScoreAdj: 0 # see restrict_oom_score_adj
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi, nodefs.available: 0%%, nodefs.inodesFree: 0%%, imagefs.available: 0%%}
`

func (c *Cluster) startKubelet() error {
	config, err := c.write("kubelet.yaml", fmt.Sprintf(kubeletConfig, c.Authority(), "/"+c.cgroup, containerdSocket))
	if err != nil {
		return err
	}
	kubelet, err := c.spawn("kubelet", "--config="+config, "--kubeconfig="+c.path("kubelet.kubeconfig"),
		"--hostname-override="+nodeName, "--node-ip="+nodeAddress, "--root-dir="+c.path("kubelet"), "--cert-dir="+c.path("kubelet", "pki"))
	if err != nil {
		return err
	}
	return kubelet.await(func() error {
		out, err := c.kubectl("", "get", "node", nodeName, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		if err == nil && out != "True" {
			err = fmt.Errorf("the node's Ready is %q", out)
		}
		return err
	})
}
