package emulator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certificateLife is how long a certificate is valid, and certificateSpare how
// much of that must be left for New to go on using it.
const (
	certificateLife  = 10 * 365 * 24 * time.Hour
	certificateSpare = 24 * time.Hour
)

// CAFile returns the path of the certificate, in PEM, by which clients know
// this server: it signs itself. It is "" without Config.TLS.
func (s *Server) CAFile() string {
	if !s.cfg.TLS {
		return ""
	}
	return filepath.Join(s.cfg.Dir, "tls", "public.crt")
}

// certificate reads the server's certificate and makes one when there is none
// or it is about to expire.
func (s *Server) certificate() (tls.Certificate, error) {
	certFile := s.CAFile()
	keyFile := filepath.Join(filepath.Dir(certFile), "private.key")
	now := s.clock.now()
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err == nil && cert.Leaf != nil && cert.Leaf.NotAfter.Sub(now) > certificateSpare {
		return cert, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateLife),
		DNSNames:    []string{"localhost", "*.localhost", "*.s3.localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	if err := os.MkdirAll(filepath.Dir(certFile), 0o700); err != nil {
		return tls.Certificate{}, err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	if err := s.vault.writeFile(keyFile, keyPEM); err != nil {
		return tls.Certificate{}, err
	}
	if err := s.vault.writeFile(certFile, certPEM); err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certPEM, keyPEM)
}
