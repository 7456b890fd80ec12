//go:build e2e && linux

package cluster

import (
	"fmt"
	"net/http"
	"time"
)

const etcdURL = "http://127.0.0.1:2379"

// startAPI starts etcd and the API server.
func (c *Cluster) startAPI() error {
	if err := c.makePKI(); err != nil {
		return err
	}
	etcd, err := c.spawn("etcd", "--data-dir", c.path("etcd"), "--log-level", "warn", "--unsafe-no-fsync",
		"--listen-client-urls", etcdURL, "--advertise-client-urls", etcdURL,
		"--listen-peer-urls", "http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380",
		"--initial-cluster", "default=http://127.0.0.1:2380")
	if err != nil {
		return err
	}
	if err := etcd.await(func() error { return answers(etcdURL + "/health") }); err != nil {
		return err
	}
	api, err := c.spawn("kube-apiserver", c.apiFlags()...)
	if err != nil {
		return err
	}
	return api.await(func() error {
		_, err := c.kubectl("", "get", "--raw", "/readyz")
		return err
	})
}

func (c *Cluster) apiFlags() []string {
	pki := func(name string) string { return c.path("pki", name) }
	return []string{
		"--etcd-servers=" + etcdURL,
		"--bind-address=0.0.0.0", "--advertise-address=" + nodeAddress, "--secure-port=6443",
		"--service-cluster-ip-range=10.96.0.0/24",
		"--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
		"--client-ca-file=" + c.Authority(),
		"--kubelet-client-certificate=" + pki("kubelet-client.crt"), "--kubelet-client-key=" + pki("kubelet-client.key"),
		"--service-account-issuer=" + Issuer, "--service-account-jwks-uri=" + Issuer + "/openid/v1/jwks",
		"--service-account-key-file=" + pki("issuer.pub"), "--service-account-signing-key-file=" + pki("issuer.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		"--enable-aggregator-routing=true", // webhooks are called at their endpoints: no kube-proxy
	}
}

// answers is nil if a GET gives 200.
func answers(url string) error {
	client := &http.Client{Timeout: time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}
