//go:build e2e && linux

package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"time"
)

// clients are the users that the cluster's own programs, and the tests, are to the API server.
var clients = map[string]pkix.Name{
	"admin":              {CommonName: "admin", Organization: []string{"system:masters"}},
	"controller-manager": {CommonName: "system:kube-controller-manager"},
	"scheduler":          {CommonName: "system:kube-scheduler"},
	"kubelet":            {CommonName: "system:node:" + nodeName, Organization: []string{"system:nodes"}},
	"kubelet-client":     {CommonName: "apiserver-kubelet-client", Organization: []string{"system:masters"}},
}

// authority signs the cluster's certificates.
type authority struct {
	c    *Cluster
	cert *x509.Certificate
	key  crypto.Signer
}

// makePKI writes the keys and certificates of all programs, their kubeconfigs, and the key of the issuer.
func (c *Cluster) makePKI() error {
	ca, err := c.makeAuthority()
	if err != nil {
		return err
	}
	server := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP(nodeAddress), net.IPv4(10, 96, 0, 1)},
		DNSNames:    []string{"localhost", "kubernetes.default.svc"},
	}
	if err := ca.issue("apiserver", server); err != nil {
		return err
	}
	for name, subject := range clients {
		if err := ca.issue(name, &x509.Certificate{Subject: subject, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			return err
		}
		if err := c.writeKubeconfig(name); err != nil {
			return err
		}
	}
	return c.makeIssuerKey()
}

func (c *Cluster) makeAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	ca := &authority{c: c, cert: template, key: key}
	if err := ca.sign("ca", template, key); err != nil {
		return nil, err
	}
	return ca, nil
}

// issue makes a key and a certificate for it.
func (ca *authority) issue(name string, template *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		return err
	}
	template.NotBefore, template.NotAfter = ca.cert.NotBefore, ca.cert.NotAfter
	template.KeyUsage = x509.KeyUsageDigitalSignature
	return ca.sign(name, template, key)
}

// sign writes NAME.crt and NAME.key.
func (ca *authority) sign(name string, template *x509.Certificate, key crypto.Signer) error {
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return err
	}
	if err := ca.c.writePEM(name+".crt", "CERTIFICATE", der); err != nil {
		return err
	}
	return ca.c.writeKey(name+".key", key)
}

// makeIssuerKey makes the key that signs service account tokens: RSA, as Entra takes no other.
func (c *Cluster) makeIssuerKey() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := c.writePEM("issuer.pub", "PUBLIC KEY", public); err != nil {
		return err
	}
	return c.writeKey("issuer.key", key)
}

func (c *Cluster) writeKey(name string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return c.writePEM(name, "PRIVATE KEY", der)
}

func (c *Cluster) writePEM(name, kind string, der []byte) error {
	_, err := c.write("pki/"+name, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	return err
}

// writeKubeconfig writes NAME.kubeconfig, in JSON, which is YAML too.
func (c *Cluster) writeKubeconfig(name string) error {
	type object = map[string]any
	text, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "e2e",
		"clusters": []object{{"name": "e2e", "cluster": object{"server": Server, "certificate-authority": c.Authority()}}},
		"users": []object{{"name": name, "user": object{
			"client-certificate": c.path("pki", name+".crt"), "client-key": c.path("pki", name+".key"),
		}}},
		"contexts": []object{{"name": "e2e", "context": object{"cluster": "e2e", "user": name}}},
	})
	if err != nil {
		return err
	}
	_, err = c.write(name+".kubeconfig", string(text))
	return err
}
