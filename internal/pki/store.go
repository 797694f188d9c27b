package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Authority names one of a cluster's two authorities.
type Authority string

// The authorities of a Store, which are also the names of their files.
const (
	// ClusterAuthority signs for all gRPC between people, services and nodes.
	ClusterAuthority Authority = "ca"
	// EtcdAuthority signs for etcd's members and their clients.
	EtcdAuthority Authority = "etcd-ca"
)

// Store is a directory with a cluster's authorities and what they signed, as the one host keeps it
// that a cluster is installed from. The authorities' keys never leave it. It is not safe for
// concurrent use, and one process at a time may write to its directory.
type Store struct {
	dir         string
	authorities map[Authority]*CA
}

// InitStore makes the authorities of a new cluster of that name, unless the directory has them
// already, and returns those it made.
func InitStore(dir, cluster string) ([]Authority, error) {
	var made []Authority
	for _, a := range []Authority{ClusterAuthority, EtcdAuthority} {
		cert, key := filepath.Join(dir, string(a)+".crt"), filepath.Join(dir, string(a)+".key")
		if _, err := os.Stat(cert); err == nil {
			if _, err := LoadCA(cert, key); err != nil {
				return made, err
			}
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			return made, err
		}
		ca, err := CreateCA(cluster+" "+string(a), 0)
		if err != nil {
			return made, err
		}
		if err := ca.WriteFiles(cert, key); err != nil {
			return made, err
		}
		made = append(made, a)
	}
	return made, nil
}

// OpenStore opens the directory that InitStore made.
func OpenStore(dir string) (*Store, error) {
	s := &Store{dir: dir, authorities: map[Authority]*CA{}}
	for _, a := range []Authority{ClusterAuthority, EtcdAuthority} {
		ca, err := LoadCA(filepath.Join(dir, string(a)+".crt"), filepath.Join(dir, string(a)+".key"))
		if err != nil {
			return nil, err
		}
		s.authorities[a] = ca
	}
	return s, nil
}

// Renewal says when Ensure replaces a certificate that is still good.
type Renewal struct {
	// Before is how long before its end a certificate is replaced.
	Before time.Duration
	// Always replaces all.
	Always bool
}

// Ensure makes sure that <name>.crt and <name>.key, in the store's directory, hold a certificate as
// requested, signed by the authority as it is now, with its key. It issues a new one where they do
// not and returns why; the reason is empty when all was well. name may hold folders, which are
// made.
func (s *Store) Ensure(name string, by Authority, req Request, renewal Renewal) (reason string, err error) {
	ca := s.authorities[by]
	certFile, keyFile := filepath.Join(s.dir, name+".crt"), filepath.Join(s.dir, name+".key")
	reason, err = s.unfit(certFile, keyFile, ca, req, renewal)
	if err != nil || reason == "" {
		return "", err
	}
	pair, err := ca.Issue(req)
	if err != nil {
		return "", err
	}
	return reason, pair.WriteFiles(certFile, keyFile)
}

// Trust makes sure that a file in the store's directory holds the authority's certificate, and
// those of the one before and after it while authorities rotate. It says whether the file had to be
// written.
func (s *Store) Trust(name string, authority Authority) (written bool, err error) {
	want, err := s.trusted(authority)
	if err != nil {
		return false, err
	}
	file := filepath.Join(s.dir, name)
	have, err := os.ReadFile(file)
	if err == nil && bytes.Equal(have, want) {
		return false, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return true, WriteFile(file, want)
}

// unfit returns why a stored certificate can't stand for the request, empty when it can.
func (s *Store) unfit(certFile, keyFile string, ca *CA, req Request, renewal Renewal) (string, error) {
	leaf, err := loadLeaf(certFile, keyFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there was none", nil
	case errors.Is(err, fs.ErrPermission):
		return "", err
	case err != nil:
		return "it could not be read: " + err.Error(), nil //nolint:nilerr // the reason is the result
	}
	switch {
	case leaf.CheckSignatureFrom(ca.cert) != nil:
		return "it was signed by another authority", nil //nolint:nilerr // the reason is the result
	case !namesMatch(leaf, req):
		return "it was for other names", nil
	case !slices.Equal(leaf.ExtKeyUsage, usages(req)):
		return "it was for other uses", nil
	case renewal.Always:
		return "renewal was asked for", nil
	// An authority at its own end can't sign for longer: renewing early would be for nothing.
	case time.Until(leaf.NotAfter) < renewal.Before && leaf.NotAfter.Before(ca.cert.NotAfter):
		return "it ends on " + leaf.NotAfter.UTC().Format(time.RFC3339), nil
	}
	return "", nil
}

func loadLeaf(certFile, keyFile string) (*x509.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, err
	}
	if _, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok {
		return nil, fmt.Errorf("%s holds a key of type %T", certFile, leaf.PublicKey)
	}
	return leaf, nil
}

// namesMatch says whether a certificate holds the names that the request asks for, no more and no
// less.
func namesMatch(leaf *x509.Certificate, req Request) bool {
	return leaf.Subject.CommonName == req.CommonName &&
		slices.Equal(leaf.Subject.Organization, req.Organizations) &&
		slices.Equal(leaf.DNSNames, req.DNSNames) &&
		slices.EqualFunc(leaf.IPAddresses, req.IPs, net.IP.Equal)
}

// usages are the extended key usages of a certificate as requested.
func usages(req Request) []x509.ExtKeyUsage {
	var out []x509.ExtKeyUsage
	if req.Server {
		out = append(out, x509.ExtKeyUsageServerAuth)
	}
	if req.Client {
		out = append(out, x509.ExtKeyUsageClientAuth)
	}
	return out
}
