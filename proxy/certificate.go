package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1" // what the protocol knows a certificate by
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"
)

// certificateLife is far longer than a process lives, and the certificate is of
// one process: its key is in memory alone.
const certificateLife = 5 * 365 * 24 * time.Hour

// NewCertificate makes a certificate for the loopback names and addresses, and
// its key, which is in no file. It is for the listener of Service Fabric's
// protocol, whose clients know it by [Thumbprint].
func NewCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("proxy: making a key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetInt64(now.UnixNano()),
		Subject:      pkix.Name{CommonName: "svidecar"},
		NotBefore:    now.Add(-time.Hour), // a clock may be set back
		NotAfter:     now.Add(certificateLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},

		BasicConstraintsValid: true, // it vouches for no other
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("proxy: making a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// Thumbprint is the SHA-1 of the certificate, in upper-case hexadecimal, as
// IDENTITY_SERVER_THUMBPRINT holds it.
func Thumbprint(certificate tls.Certificate) string {
	sum := sha1.Sum(certificate.Certificate[0])
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}
