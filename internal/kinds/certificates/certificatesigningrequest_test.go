package certificates_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	certificatesv1 "github.com/xebec-project/xebec/proto/xebec/certificates/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

type (
	request   = *certificatesv1.CertificateSigningRequest
	condition = certificatesv1.CertificateSigningRequestCondition
)

// newRequest returns a function that makes requests, which have the same key.
func newRequest(t *testing.T) func() request {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return func() request {
		return &certificatesv1.CertificateSigningRequest{
			Metadata: &metav1.ObjectMeta{Name: "Alice:1"},
			Spec: &certificatesv1.CertificateSigningRequestSpec{
				Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: "example.com/people",
				Usages: []string{"client auth"}, ExpirationSeconds: proto.Int32(86400), Username: "alice",
			},
		}
	}
}

func TestCertificateSigningRequest(t *testing.T) {
	base := newRequest(t)
	kindtest.Validate(t, base, []kindtest.Bad[request]{
		{Name: "no PEM", Edit: func(r request) { r.Spec.Request = []byte("x") }, Want: []string{"spec.request: Invalid value: PEM block type must be CERTIFICATE REQUEST"}},
		{Name: "signature", Edit: func(r request) {
			block, _ := pem.Decode(r.Spec.Request)
			block.Bytes[len(block.Bytes)-1] ^= 1
			r.Spec.Request = pem.EncodeToMemory(block)
		}, Want: []string{"spec.request: Invalid value: x509: ECDSA verification failure"}},
		{Name: "no usage", Edit: func(r request) { r.Spec.Usages = nil }, Want: []string{"spec.usages: Required"}},
		{Name: "usages", Edit: func(r request) { r.Spec.Usages = []string{"fun", "any", "any"} },
			Want: []string{`spec.usages[0]: Unsupported value: "fun"`, "spec.usages[2]: Duplicate"}},
		{Name: "no signer", Edit: func(r request) { r.Spec.SignerName = "" }, Want: []string{"spec.signerName: Required"}},
		{Name: "signer", Edit: func(r request) { r.Spec.SignerName = "people" }, Want: []string{"spec.signerName: Invalid value"}},
		{Name: "domain", Edit: func(r request) { r.Spec.SignerName = "example/A" }, Want: []string{
			`spec.signerName: Invalid value: "A": validating label "A"`, `spec.signerName: Invalid value: "example": should be a domain`,
		}},
		{Name: "legacy", Edit: func(r request) { r.Spec.SignerName = "kubernetes.io/legacy-unknown" }, Want: []string{"spec.signerName: Invalid value"}},
		{Name: "short", Edit: func(r request) { r.Spec.ExpirationSeconds = proto.Int32(599) }, Want: []string{"spec.expirationSeconds: Invalid value: 599: may not specify"}},
		{Name: "name", Edit: func(r request) { r.Metadata.Name = "a/b" }, Want: []string{"metadata.name: Invalid value"}},
	})
	r := base()
	kindtest.ExpectCells(t, r, kindtest.Now, map[string]string{
		"SIGNERNAME": "example.com/people", "REQUESTOR": "alice", "REQUESTEDDURATION": "24h", "CONDITION": "Pending",
	})
	r.Status = &certificatesv1.CertificateSigningRequestStatus{Conditions: []*condition{{Type: "Approved"}, {Type: "Failed"}}}
	kindtest.ExpectCells(t, r, kindtest.Now, map[string]string{"CONDITION": "Approved,Failed"})
}

// decided returns a function that makes approved requests.
func decided(t *testing.T) func() request {
	t.Helper()
	base, at := newRequest(t), timestamppb.New(kindtest.Now)
	return func() request {
		r := base()
		r.Status = &certificatesv1.CertificateSigningRequestStatus{
			Conditions: []*condition{{Type: "Approved", Status: "True", LastUpdateTime: at, LastTransitionTime: at}},
		}
		return r
	}
}

func TestApproval(t *testing.T) {
	add := func(r request, name, status string) {
		r.Status.Conditions = append(r.Status.Conditions, &condition{Type: name, Status: status})
	}
	kindtest.Part(t, "approval", decided(t), []kindtest.Edit[request]{
		{Name: "reason", Edit: func(r request) { r.Status.Conditions[0].Reason = "Checked" }},
		{Name: "other", Edit: func(r request) { add(r, "Seen", "False") }},
		{Name: "denied as well", Edit: func(r request) { add(r, "Denied", "True") },
			Want: []string{`status.conditions: Invalid value: "Denied": Approved and Denied conditions are mutually exclusive`}},
		{Name: "not quite", Edit: func(r request) { r.Status.Conditions[0].Status = "Unknown" },
			Want: []string{`status.conditions[0].status: Unsupported value: "Unknown": supported values: "True"`}},
		{Name: "removed", Edit: func(r request) { r.Status.Conditions = nil },
			Want: []string{`status.conditions: Forbidden: updates may not remove a condition of type "Approved"`}},
		{Name: "incomplete", Edit: func(r request) { add(r, "", "") }, Want: []string{"status.conditions[1].type: Required", "status.conditions[1].status: Required"}},
		{Name: "twice", Edit: func(r request) { add(r, "Approved", "True") }, Want: []string{"status.conditions[1].type: Duplicate"}},
		{Name: "what it does not change", Edit: func(r request) { r.Status.Certificate, r.Spec = []byte("x"), nil }},
	})
}

func TestStatusOfRequest(t *testing.T) {
	base := decided(t)
	status := func(name string, edit func(request), want ...string) request {
		old := base()
		now := proto.CloneOf(old)
		edit(now)
		k := kinds.Of(old)
		k.PrepareStatusUpdate(now, old)
		t.Run(name, func(t *testing.T) { kindtest.Expect(t, k.ValidateStatusUpdate(now, old), want) })
		return now
	}
	r := status("the decision stays", func(r request) { r.Status.Conditions[0].Reason = "Forged" })
	if r.Status.Conditions[0].GetReason() != "" {
		t.Errorf("the condition is %v", r.Status.Conditions[0])
	}
	r = status("failed", func(r request) {
		r.Status.Conditions = append(r.Status.Conditions, &condition{Type: "Failed", Status: "True"})
	})
	if c := r.Status.Conditions[1]; c.GetLastUpdateTime() == nil || c.GetLastTransitionTime() == nil {
		t.Errorf("the condition has no times: %v", c)
	}
	status("denied", func(r request) { r.Status.Conditions[0].Type = "Denied" },
		`status.conditions: Forbidden: updates may not add a condition of type "Denied"`,
		`status.conditions: Forbidden: updates may not remove a condition of type "Approved"`)
	status("no certificate", func(r request) { r.Status.Certificate = []byte("x") },
		`status.certificate: Invalid value: "<certificate data>": must contain at least one CERTIFICATE PEM block`)
	status("a key", func(r request) { r.Status.Certificate = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY"}) },
		`status.certificate: Invalid value: "<certificate data>": only CERTIFICATE PEM blocks are allowed, found "PRIVATE KEY"`)
}
