package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Files names the PEM files of one identity.
type Files struct {
	// CA holds the certificates of the authorities that peers' certificates must be signed by; more
	// than one while authorities rotate.
	CA string `yaml:"ca" help:"file with the certificates of the trusted authorities"`
	// Cert and Key hold the own certificate and its private key.
	Cert string `yaml:"cert" help:"file with the own certificate"`
	Key  string `yaml:"key" help:"file with the own private key"`
}

// IsZero tells whether no file is named.
func (f Files) IsZero() bool { return f == Files{} }

// checkInterval is how long a Source trusts what it last saw on disk.
const checkInterval = time.Second

// Source serves certificates to TLS from files or memory and follows the files: a handshake that
// begins a second or more after a change uses the new content. Nothing runs between handshakes.
// While the files do not fit together the last good content stays in use. It is safe for concurrent
// use.
type Source struct {
	files Files // zero for a source in memory
	// issue makes the next generation of a source that NewIssuedSource returned, nil for others.
	issue func() (*snapshot, error)

	mu      sync.Mutex
	checked time.Time
	stamps  [3]stamp
	current *snapshot
	lastErr error
}

type stamp struct {
	modified time.Time
	size     int64
}

// snapshot is one generation of certificates; immutable.
type snapshot struct {
	cert    *tls.Certificate
	leaf    *x509.Certificate
	pool    *x509.CertPool
	poolPEM []byte
	server  *tls.Config
}

// NewSource reads the files once. It fails when one can't be read, when certificate and key do not
// belong together, when the certificate isn't signed by one of the authorities, or when it has
// expired.
func NewSource(files Files) (*Source, error) {
	for name, file := range map[string]string{"ca": files.CA, "cert": files.Cert, "key": files.Key} {
		if file == "" {
			return nil, fmt.Errorf("certificates: no %s file is named", name)
		}
	}
	s := &Source{files: files}
	stamps, err := s.stat()
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	next, err := s.read()
	if err != nil {
		return nil, err
	}
	s.current, s.stamps, s.checked = next, stamps, time.Now()
	return s, nil
}

// NewMemorySource serves one pair and a bundle of authorities, all in PEM, that never change.
func NewMemorySource(caPEM []byte, pair *Pair) (*Source, error) {
	snap, err := parse(caPEM, pair.CertPEM, pair.KeyPEM)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	return &Source{current: snap}, nil
}

// NewIssuedSource serves certificates that ca issues in memory as req asks, and trusts a bundle of
// authorities in PEM. A handshake in the last third of a certificate's validity uses a new one. It
// is for programs that act as many users, such as simulated nodes: all others get their
// certificates and never see the key of an authority.
func NewIssuedSource(caPEM []byte, ca *CA, req Request) (*Source, error) {
	s := &Source{issue: func() (*snapshot, error) {
		pair, err := ca.Issue(req)
		if err != nil {
			return nil, err
		}
		return parse(caPEM, pair.CertPEM, pair.KeyPEM)
	}}
	var err error
	if s.current, err = s.issue(); err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	return s, nil
}

// NewTrustSource serves a bundle of authorities in PEM and no certificate, for a client that proves
// who it is by a token. Its Leaf is nil, and it is of no use to a server.
func NewTrustSource(caPEM []byte) (*Source, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(caPEM) {
		return nil, errors.New("certificates: the authorities' file holds no certificate")
	}
	return &Source{current: &snapshot{pool: pool, poolPEM: caPEM}}, nil
}

// Leaf returns the own certificate in use, which must not be changed.
func (s *Source) Leaf() *x509.Certificate { return s.load().leaf }

// Authorities returns the certificates of the authorities in use, in PEM, which must not be
// changed.
func (s *Source) Authorities() []byte { return s.load().poolPEM }

// Err returns why the last attempt to reload failed, nil when the files are in use as they are.
func (s *Source) Err() error {
	s.load()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastErr
}

// ServerConfig returns a TLS 1.3 configuration for a gRPC server that demands a client certificate
// signed by one of the authorities. A client that shows none, an expired or a foreign one gets an
// alert that says which.
func (s *Source) ServerConfig() *tls.Config {
	config := s.load().server.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return s.load().server, nil
	}
	return config
}

// OptionalServerConfig is ServerConfig for a server that knows its callers by other means as well:
// a client need not show a certificate, but one that it shows must be good.
func (s *Source) OptionalServerConfig() *tls.Config {
	optional := func() *tls.Config {
		config := s.load().server.Clone()
		config.ClientAuth = tls.VerifyClientCertIfGiven
		return config
	}
	config := optional()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return optional(), nil }
	return config
}

// ClientConfig returns a TLS 1.3 configuration for a client. The server's certificate must be
// signed by one of the authorities and pass verify, which checks whose it is.
func (s *Source) ClientConfig(verify func(*x509.Certificate) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			snap := s.load()
			if snap.cert == nil {
				return &tls.Certificate{}, nil
			}
			if err := checkValidity(snap.leaf); err != nil {
				return nil, fmt.Errorf("own %w", err)
			}
			return snap.cert, nil
		},
		// Verification is not skipped: VerifyConnection does all of it, against the authorities of the
		// moment, which RootCAs could not follow.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection: func(state tls.ConnectionState) error {
			return s.verifyServer(state, verify)
		},
	}
}

func (s *Source) verifyServer(state tls.ConnectionState, verify func(*x509.Certificate) error) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the server showed no certificate")
	}
	leaf := state.PeerCertificates[0]
	intermediates := x509.NewCertPool()
	for _, cert := range state.PeerCertificates[1:] {
		intermediates.AddCert(cert)
	}
	opts := x509.VerifyOptions{Roots: s.load().pool, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if _, err := leaf.Verify(opts); err != nil {
		return fmt.Errorf("certificate of server %q: %w", leaf.Subject.CommonName, explain(leaf, err))
	}
	return verify(leaf)
}

// AnyServer is a verify for ClientConfig that is content with every server the authorities signed
// for, as where one authority serves one purpose alone.
func AnyServer(*x509.Certificate) error { return nil }

// load returns the generation to use, after a look at the files when the last look is old.
func (s *Source) load() *snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.issue != nil {
		s.reissue()
		return s.current
	}
	if s.files.IsZero() || time.Since(s.checked) < checkInterval {
		return s.current
	}
	s.checked = time.Now()
	stamps, err := s.stat()
	if err != nil {
		s.lastErr = err
		return s.current
	}
	if stamps == s.stamps && s.lastErr == nil {
		return s.current
	}
	next, err := s.read()
	if err != nil {
		// Half of a rotation, most likely: try again at the next look.
		s.lastErr = err
		return s.current
	}
	s.current, s.stamps, s.lastErr = next, stamps, nil
	return s.current
}

// reissue replaces a certificate in the last third of its validity, and keeps it when that fails.
// The caller holds s.mu.
func (s *Source) reissue() {
	leaf, now := s.current.leaf, time.Now()
	if left := leaf.NotAfter.Sub(now); left > leaf.NotAfter.Sub(leaf.NotBefore)/3 || now.Sub(s.checked) < checkInterval {
		return
	}
	s.checked = now
	next, err := s.issue()
	if s.lastErr = err; err == nil {
		s.current = next
	}
}

func (s *Source) stat() (stamps [3]stamp, err error) {
	for i, name := range []string{s.files.CA, s.files.Cert, s.files.Key} {
		info, err := os.Stat(name)
		if err != nil {
			return stamps, err
		}
		stamps[i] = stamp{info.ModTime(), info.Size()}
	}
	return stamps, nil
}

func (s *Source) read() (*snapshot, error) {
	var pems [3][]byte
	for i, name := range []string{s.files.CA, s.files.Cert, s.files.Key} {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("certificates: %w", err)
		}
		pems[i] = data
	}
	snap, err := parse(pems[0], pems[1], pems[2])
	if err != nil {
		return nil, fmt.Errorf("certificates %s, %s, %s: %w", s.files.CA, s.files.Cert, s.files.Key, err)
	}
	return snap, nil
}

func parse(caPEM, certPEM, keyPEM []byte) (*snapshot, error) {
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return nil, err
	}
	cert.Leaf = leaf
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(caPEM) {
		return nil, errors.New("the authorities' file holds no certificate")
	}
	intermediates := x509.NewCertPool()
	for _, der := range cert.Certificate[1:] {
		if chained, err := x509.ParseCertificate(der); err == nil {
			intermediates.AddCert(chained)
		}
	}
	opts := x509.VerifyOptions{Roots: pool, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	if _, err := leaf.Verify(opts); err != nil {
		return nil, fmt.Errorf("own certificate %q: %w", leaf.Subject.CommonName, explain(leaf, err))
	}
	return &snapshot{cert: &cert, leaf: leaf, pool: pool, poolPEM: caPEM, server: &tls.Config{
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{"h2"},
		Certificates: []tls.Certificate{cert},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
		// Connections are few and long: tickets would cost every handshake and a resumed session would
		// outlive a rotated authority.
		SessionTicketsDisabled: true,
	}}, nil
}

// explain describes a verification error and how to fix its cause.
func explain(leaf *x509.Certificate, err error) error {
	if validity := checkValidity(leaf); validity != nil {
		return validity
	}
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return fmt.Errorf(
			"it was issued by %q, which is not among the trusted authorities: "+
				"it belongs to another cluster or the authorities' file is out of date: %w",
			leaf.Issuer.CommonName,
			err,
		)
	}
	return err
}

func checkValidity(leaf *x509.Certificate) error {
	now := time.Now()
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("certificate %q expired on %s: issue a new one", leaf.Subject.CommonName, leaf.NotAfter.Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf(
			"certificate %q is valid only from %s: check this host's clock",
			leaf.Subject.CommonName,
			leaf.NotBefore.Format(time.RFC3339),
		)
	}
	return nil
}
