package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func newTestCA(t *testing.T, name string) *CA {
	t.Helper()
	ca, err := CreateCA(name, 0)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t *testing.T, ca *CA, req Request) *Pair {
	t.Helper()
	pair, err := ca.Issue(req)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func memorySource(t *testing.T, ca *CA, req Request) *Source {
	t.Helper()
	source, err := NewMemorySource(ca.CertPEM(), issue(t, ca, req))
	if err != nil {
		t.Fatal(err)
	}
	return source
}

func TestIssueHoldsWhatWasAsked(t *testing.T) {
	ca := newTestCA(t, "cluster")
	pair := issue(t, ca, NodeRequest("node-1", net.IPv4(10, 0, 0, 7)))
	parsed, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	leaf := parsed.Leaf
	if leaf.Subject.CommonName != "system:node:node-1" || leaf.Subject.Organization[0] != "system:nodes" {
		t.Errorf("subject is %v", leaf.Subject)
	}
	if err := leaf.VerifyHostname("node-1"); err != nil {
		t.Error(err)
	}
	if err := leaf.VerifyHostname("10.0.0.7"); err != nil {
		t.Error(err)
	}
	if leaf.NotAfter.After(ca.Certificate().NotAfter) {
		t.Error("certificate outlives its authority")
	}
}

func TestIssueRefusesIncompleteRequests(t *testing.T) {
	ca := newTestCA(t, "cluster")
	for _, tt := range []struct {
		req  Request
		want string
	}{
		{Request{Client: true}, "common name"},
		{Request{CommonName: "ann"}, "neither"},
	} {
		if _, err := ca.Issue(tt.req); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Issue(%+v) = %v, want an error with %q", tt.req, err, tt.want)
		}
	}
}

func TestWriteAndLoadCA(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "pki", "ca.crt"), filepath.Join(dir, "pki", "ca.key")
	if err := newTestCA(t, "cluster").WriteFiles(certFile, keyFile); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{certFile, keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	loaded, err := LoadCA(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	memorySource(t, loaded, AdminRequest("ann"))
}

func TestLoadCARefusesALeaf(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "a.crt"), filepath.Join(dir, "a.key")
	if err := issue(t, newTestCA(t, "cluster"), AdminRequest("ann")).WriteFiles(certFile, keyFile); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadCA(certFile, keyFile); err == nil || !strings.Contains(err.Error(), "not an authority") {
		t.Errorf("LoadCA of a leaf: %v", err)
	}
}

func TestSourceExplainsBadCertificates(t *testing.T) {
	ca, other := newTestCA(t, "cluster"), newTestCA(t, "other")
	expired := AdminRequest("ann")
	expired.Validity = -time.Hour
	for _, tt := range []struct {
		name string
		pair *Pair
		want string
	}{
		{"expired", issue(t, ca, expired), "expired on"},
		{"foreign", issue(t, other, AdminRequest("ann")), `issued by "other"`},
	} {
		if _, err := NewMemorySource(ca.CertPEM(), tt.pair); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// handshake connects client and server over a pipe and returns both ends' errors and the client's
// view of the server.
func handshake(client, server *tls.Config) (state tls.ConnectionState, clientErr, serverErr error) {
	clientEnd, serverEnd := net.Pipe()
	served := make(chan error, 1)
	go func() {
		conn := tls.Server(serverEnd, server)
		err := conn.Handshake()
		if err == nil {
			// In TLS 1.3 a client learns of its refusal only when it reads.
			_, err = conn.Write([]byte{1})
		}
		served <- err
		serverEnd.Close()
	}()
	conn := tls.Client(clientEnd, client)
	clientErr = conn.Handshake()
	if clientErr == nil {
		_, clientErr = conn.Read(make([]byte, 1))
	}
	state = conn.ConnectionState()
	clientEnd.Close()
	return state, clientErr, <-served
}

func TestHandshake(t *testing.T) {
	ca, other := newTestCA(t, "cluster"), newTestCA(t, "other")
	server := memorySource(t, ca, ServiceRequest("apiserver", "master-1"))
	admin := memorySource(t, ca, AdminRequest("ann"))
	foreign := memorySource(t, other, AdminRequest("mallory"))
	expiredReq := AdminRequest("ann")
	expiredReq.Validity = -time.Hour
	pair := issue(t, ca, expiredReq)
	expired, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	bare := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}}
	withExpired := bare.Clone()
	withExpired.Certificates = []tls.Certificate{expired}
	withForeign := bare.Clone()
	// By GetClientCertificate, for a client keeps back a certificate that the server said it would not
	// take.
	withForeign.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return foreign.load().cert, nil
	}
	picky := admin.ClientConfig(func(leaf *x509.Certificate) error { return leaf.VerifyHostname("elsewhere") })

	for _, tt := range []struct {
		name   string
		client *tls.Config
		want   string
	}{
		{"good", admin.ClientConfig(AnyServer), ""},
		{"no certificate", bare, "certificate required"},
		{"expired certificate", withExpired, "expired certificate"},
		{"foreign certificate", withForeign, "unknown certificate authority"},
		{"foreign server", foreign.ClientConfig(AnyServer), `issued by "cluster", which is not among`},
		{"another server", picky, "elsewhere"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err, _ := handshake(tt.client, server.ServerConfig())
			if tt.want == "" && err != nil {
				t.Fatal(err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("client got %v, want %q", err, tt.want)
			}
		})
	}
}

// Pods call a gateway by the names and the address of a service, and some tools by the master's
// own.
func TestGatewayNames(t *testing.T) {
	pair := issue(t, newTestCA(t, "ca"), GatewayRequest("master-1", "cluster.local", netip.MustParseAddr("10.96.0.1"), net.IPv4(10, 0, 0, 11)))
	block, _ := pem.Decode(pair.CertPEM)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if cert.Subject.CommonName != ServiceUser("gateway") {
		t.Errorf("it is for %s", cert.Subject.CommonName)
	}
	for _, name := range []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		"master-1", "localhost", "10.96.0.1", "10.0.0.11", "127.0.0.1"} {
		if err := cert.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"kubernetes.shop.svc", "10.96.0.2"} {
		if cert.VerifyHostname(name) == nil {
			t.Errorf("it is good for %s", name)
		}
	}
}

func TestSourceFollowsFiles(t *testing.T) {
	dir := t.TempDir()
	files := Files{CA: filepath.Join(dir, "ca.crt"), Cert: filepath.Join(dir, "s.crt"), Key: filepath.Join(dir, "s.key")}
	synctest.Test(t, func(t *testing.T) {
		oldCA, newCA := newTestCA(t, "old"), newTestCA(t, "new")
		write := func(bundle []byte, pair *Pair) {
			t.Helper()
			if err := WriteFile(files.CA, bundle); err != nil {
				t.Fatal(err)
			}
			if err := pair.WriteFiles(files.Cert, files.Key); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * checkInterval) // the bubble's clock, not the wall's
		}
		write(oldCA.CertPEM(), issue(t, oldCA, ServiceRequest("apiserver", "master-1")))
		source, err := NewSource(files)
		if err != nil {
			t.Fatal(err)
		}
		config := source.ServerConfig()
		admin := memorySource(t, newCA, AdminRequest("ann")).ClientConfig(AnyServer)
		if _, err, _ := handshake(admin, config); err == nil {
			t.Fatal("a client of the new authority was let in before the rotation")
		}

		// A key that does not fit leaves the old content in use and is reported.
		good, err := os.ReadFile(files.Key)
		if err != nil {
			t.Fatal(err)
		}
		if err := WriteFile(files.Key, issue(t, oldCA, AdminRequest("x")).KeyPEM); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * checkInterval)
		if source.Err() == nil || source.Leaf().Issuer.CommonName != "old" {
			t.Fatalf("half a rotation: error %v, issuer %s", source.Err(), source.Leaf().Issuer.CommonName)
		}
		if err := WriteFile(files.Key, good); err != nil {
			t.Fatal(err)
		}

		write(append(oldCA.CertPEM(), newCA.CertPEM()...), issue(t, newCA, ServiceRequest("apiserver", "master-1")))
		if state, err, _ := handshake(admin, config); err != nil {
			t.Fatal(err)
		} else if got := state.PeerCertificates[0].Issuer.CommonName; got != "new" {
			t.Errorf("the server still shows a certificate of %q", got)
		}
		if err := source.Err(); err != nil {
			t.Error(err)
		}
	})
}

// TestIssuedSource issues certificates in memory, and a new one before one expires.
func TestIssuedSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, err := CreateCA("cluster", 30*24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		request := NodeRequest("a")
		request.Validity = 12 * time.Hour
		source, err := NewIssuedSource(ca.CertPEM(), ca, request)
		if err != nil {
			t.Fatal(err)
		}
		first := source.Leaf()
		if first.Subject.CommonName != "system:node:a" || !slices.Equal(first.Subject.Organization, []string{GroupNodes}) {
			t.Errorf("issued for %s", first.Subject)
		}
		time.Sleep(6 * time.Hour)
		if !source.Leaf().Equal(first) {
			t.Error("another certificate after half of the validity")
		}
		time.Sleep(4 * time.Hour)
		if next := source.Leaf(); next.Equal(first) || next.Subject.CommonName != "system:node:a" || time.Until(next.NotAfter) != 12*time.Hour {
			t.Errorf("certificate %s until %s, want a new one", next.Subject, next.NotAfter)
		}
		// An authority that has expired issues nothing: what there is stays.
		last := source.Leaf()
		time.Sleep(40 * 24 * time.Hour)
		if source.Leaf() == nil || source.Err() == nil || !strings.Contains(source.Err().Error(), "expired") {
			t.Errorf("certificate %v, %v, want an error that says that the authority has expired", last.NotAfter, source.Err())
		}

		other, err := CreateCA("other", 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := NewIssuedSource(other.CertPEM(), ca, request); err == nil {
			t.Error("issued by an authority that is not trusted")
		}
	})
}
