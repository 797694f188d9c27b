// Package pki makes, stores and reloads the X.509 certificates by which every process of a cluster
// knows every other.
//
// A cluster has two authorities: one for all gRPC between people, services and nodes, one for etcd.
// Keys are ECDSA P-256. A certificate's common name is the user and its organizations are the
// groups that the holder acts as.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// DefaultCAValidity is how long an authority made with validity 0 is good for.
const DefaultCAValidity = 10 * 365 * 24 * time.Hour

// DefaultValidity is how long a certificate issued with validity 0 is good for.
const DefaultValidity = 365 * 24 * time.Hour

// backdate is how far before now certificates begin, so that hosts whose clocks lag accept a new
// one.
const backdate = 5 * time.Minute

// CA is a certificate authority with its key. It is safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
	pair Pair
}

// Pair is a certificate and its private key, both in PEM.
type Pair struct {
	CertPEM []byte
	KeyPEM  []byte
}

// Request says what a certificate is to hold.
type Request struct {
	// CommonName is the user; required.
	CommonName string
	// Organizations are the groups.
	Organizations []string
	// DNSNames and IPs are the addresses that a server answers at.
	DNSNames []string
	IPs      []net.IP
	// Server and Client say which ends of a connection the holder may be; at least one is required.
	Server, Client bool
	// Validity counts from now; 0 is DefaultValidity. It is cut to the authority's own end.
	Validity time.Duration
}

// CreateCA makes a new self-signed authority. A validity of 0 is DefaultCAValidity.
func CreateCA(name string, validity time.Duration) (*CA, error) {
	if name == "" {
		return nil, errors.New("create certificate authority: a name is required")
	}
	if validity == 0 {
		validity = DefaultCAValidity
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("create certificate authority %q: %w", name, err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, fmt.Errorf("create certificate authority %q: %w", name, err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		// An authority signs leaves only.
		MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("create certificate authority %q: %w", name, err)
	}
	pair, err := encodePair(der, key)
	if err != nil {
		return nil, fmt.Errorf("create certificate authority %q: %w", name, err)
	}
	return newCA(pair)
}

// LoadCA reads an authority from PEM files.
func LoadCA(certFile, keyFile string) (*CA, error) {
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return nil, fmt.Errorf("load certificate authority: %w", err)
	}
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("load certificate authority: %w", err)
	}
	ca, err := newCA(Pair{CertPEM: certPEM, KeyPEM: keyPEM})
	if err != nil {
		return nil, fmt.Errorf("load certificate authority from %s and %s: %w", certFile, keyFile, err)
	}
	return ca, nil
}

func newCA(pair Pair) (*CA, error) {
	parsed, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(parsed.Certificate[0])
	if err != nil {
		return nil, err
	}
	if !cert.IsCA {
		return nil, fmt.Errorf("certificate %q is not an authority's", cert.Subject.CommonName)
	}
	key, ok := parsed.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("key of type %T cannot sign", parsed.PrivateKey)
	}
	return &CA{cert: cert, key: key, pair: pair}, nil
}

// CertPEM returns the authority's certificate.
func (ca *CA) CertPEM() []byte { return ca.pair.CertPEM }

// Certificate returns the authority's parsed certificate, which must not be changed.
func (ca *CA) Certificate() *x509.Certificate { return ca.cert }

// WriteFiles stores the authority for LoadCA, readable by the owner only.
func (ca *CA) WriteFiles(certFile, keyFile string) error {
	return ca.pair.WriteFiles(certFile, keyFile)
}

// Issue makes a key and signs a certificate for it. It fails when the request names no user or no
// use, or when the authority itself has expired.
func (ca *CA) Issue(req Request) (*Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %q: %w", req.CommonName, err)
	}
	der, err := ca.sign(req, key.Public())
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %q: %w", req.CommonName, err)
	}
	pair, err := encodePair(der, key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %q: %w", req.CommonName, err)
	}
	return &pair, nil
}

// Sign signs a certificate for a key that its holder keeps. It checks what Issue checks.
func (ca *CA) Sign(req Request, public crypto.PublicKey) (certPEM []byte, err error) {
	der, err := ca.sign(req, public)
	if err != nil {
		return nil, fmt.Errorf("sign certificate for %q: %w", req.CommonName, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

func (ca *CA) sign(req Request, public crypto.PublicKey) ([]byte, error) {
	if req.CommonName == "" {
		return nil, errors.New("a common name is required")
	}
	if !req.Server && !req.Client {
		return nil, errors.New("neither a server's nor a client's certificate was asked for")
	}
	now := time.Now()
	if now.After(ca.cert.NotAfter) {
		return nil, fmt.Errorf("authority %q expired on %s", ca.cert.Subject.CommonName, ca.cert.NotAfter.Format(time.RFC3339))
	}
	validity := req.Validity
	if validity == 0 {
		validity = DefaultValidity
	}
	notAfter := now.Add(validity)
	if notAfter.After(ca.cert.NotAfter) {
		notAfter = ca.cert.NotAfter
	}
	notBefore := now.Add(-backdate)
	if notAfter.Before(notBefore) {
		notBefore = notAfter.Add(-backdate)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: req.CommonName, Organization: req.Organizations},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		DNSNames:              req.DNSNames,
		IPAddresses:           req.IPs,
		ExtKeyUsage:           usages(req),
	}
	return x509.CreateCertificate(rand.Reader, template, ca.cert, public, ca.key)
}

// WriteFiles stores the pair in two files, readable by the owner only, making their folders when
// absent. Each file is replaced atomically, the certificate last: a Source keeps the old pair until
// both match. Both are on the disk before either is replaced, so that they do not match for a
// moment alone.
func (p *Pair) WriteFiles(certFile, keyFile string) error {
	key, err := stage(keyFile, p.KeyPEM)
	if err != nil {
		return err
	}
	cert, err := stage(certFile, p.CertPEM)
	if err != nil {
		_ = os.Remove(key)
		return err
	}
	if err := put(key, keyFile); err != nil {
		_ = os.Remove(cert)
		return err
	}
	return put(cert, certFile)
}

// WriteFile replaces a file atomically with data readable by the owner only, making its folder when
// absent.
func WriteFile(name string, data []byte) error {
	staged, err := stage(name, data)
	if err != nil {
		return err
	}
	return put(staged, name)
}

// stage writes data to the disk beside a file that it is to replace, and returns where.
func stage(name string, data []byte) (string, error) {
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	// CreateTemp makes the file with mode 0600.
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(name)+".*")
	if err != nil {
		return "", err
	}
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	return tmp.Name(), nil
}

// put replaces a file by one that was staged for it.
func put(staged, name string) error {
	if err := os.Rename(staged, name); err != nil {
		_ = os.Remove(staged)
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func encodePair(der []byte, key *ecdsa.PrivateKey) (Pair, error) {
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{
		CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		KeyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

// newSerial returns 127 random bits, which fit the 20 octets and the positive sign that RFC 5280
// asks for.
func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}
