package apiserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	certificatesv1 "github.com/xebec-project/xebec/proto/xebec/certificates/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

type signingRequest = *certificatesv1.CertificateSigningRequest

const signer = "example.com/e2e"

// newRequest returns a request of a certificate for a subject, and the certificate.
func newRequest(t *testing.T, name string, subject pkix.Name) (signingRequest, []byte) {
	t.Helper()
	key := do[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	request := do[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: subject, NotAfter: time.Now().Add(time.Hour)}
	certificate := do[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	return &certificatesv1.CertificateSigningRequest{
		Metadata: &metav1.ObjectMeta{Name: name},
		Spec: &certificatesv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}),
			SignerName: signer, ExpirationSeconds: proto.Int32(3600), Usages: []string{"digital signature", "key encipherment", "server auth"},
		},
	}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
}

func hasCondition(r signingRequest, name string) bool {
	return slices.ContainsFunc(r.GetStatus().GetConditions(), func(c *certificatesv1.CertificateSigningRequestCondition) bool {
		return c.GetType() == name && c.GetLastTransitionTime() != nil && c.GetLastUpdateTime() != nil
	})
}

func TestCertificateSigningRequests(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	c := admin(conn)
	waitNamespace(t, c)
	t.Run("Certificates API [Privileged:ClusterAdmin] should support CSR API operations", func(t *testing.T) {
		ctx := t.Context()
		var certificate []byte
		for _, name := range []string{"a", "b", "c"} {
			var r signingRequest
			r, certificate = newRequest(t, name, pkix.Name{CommonName: "e2e.example.com"})
			do[signingRequest](t)(client.Create(ctx, c, r))
		}
		selected := client.ListOptions{FieldSelector: "spec.signerName=" + signer}
		expectListed[signingRequest](t, c, selected, "a", "b", "c")
		expectListed[signingRequest](t, c, client.ListOptions{FieldSelector: "spec.signerName=example.com/other"})

		patch := func(text string, o ...client.PatchOption) signingRequest {
			t.Helper()
			return client.Clone(do[signingRequest](t)(client.Patch[signingRequest](ctx, c, "", "a", []byte(text), o...)))
		}
		r := patch(`{"metadata":{"annotations":{"patched":"true"}}}`)
		r.Metadata.Annotations["updated"] = "true"
		r = client.Clone(do[signingRequest](t)(client.Update(ctx, c, r)))
		if a := r.GetMetadata().GetAnnotations(); a["patched"] != "true" || a["updated"] != "true" {
			t.Errorf("the annotations are %v", a)
		}

		approval := client.Subresource("approval")
		r = patch(`{"metadata":{"annotations":{"patchedapproval":"true"}},"status":{"conditions":[{"type":"ApprovalPatch","status":"True","reason":"e2e"}]}}`, approval)
		if !hasCondition(r, "ApprovalPatch") || r.GetMetadata().GetAnnotations()["patchedapproval"] != "true" {
			t.Errorf("after a patch of the approval: %v", r)
		}
		r.Status.Conditions = append(r.Status.Conditions, &certificatesv1.CertificateSigningRequestCondition{Type: "Approved", Status: "True", Reason: "E2E"})
		r.Status.Certificate, r.Spec.Username = certificate, "eve"
		r = client.Clone(do[signingRequest](t)(client.Update(ctx, c, r, approval)))
		if !hasCondition(r, "Approved") || len(r.GetStatus().GetCertificate()) > 0 || r.GetSpec().GetUsername() != "alice" {
			t.Errorf("after an update of the approval: %v", r)
		}

		status := client.Subresource("status")
		r = patch(`{"metadata":{"annotations":{"patchedstatus":"true"}},"status":{"certificate":"`+base64.StdEncoding.EncodeToString(certificate)+`"}}`, status)
		if !slices.Equal(r.GetStatus().GetCertificate(), certificate) || r.GetMetadata().GetAnnotations()["patchedstatus"] != "true" {
			t.Errorf("after a patch of the status: %v", r)
		}
		r.Status.Conditions = append(r.Status.Conditions, &certificatesv1.CertificateSigningRequestCondition{Type: "StatusUpdate", Status: "True"})
		r = do[signingRequest](t)(client.Update(ctx, c, r, status))
		if !hasCondition(r, "StatusUpdate") || !hasCondition(r, "Approved") {
			t.Errorf("after an update of the status: %v", r)
		}
		do[bool](t)(client.Delete[signingRequest](ctx, c, "", "a"))
		if _, err := client.DeleteCollection[signingRequest](ctx, c, selected); err != nil {
			t.Fatal(err)
		}
		expectListed[signingRequest](t, c, selected)
	})
	t.Run("the server says who makes a request", func(t *testing.T) {
		ctx := t.Context()
		r, _ := newRequest(t, "who", pkix.Name{CommonName: "x"})
		r.Spec.Username, r.Spec.Uid, r.Spec.Groups = "eve", "7", []string{"spies"}
		r.Spec.Extra = map[string]*certificatesv1.ExtraValue{"a": {Items: []string{"b"}}}
		var warnings []string
		r = client.Clone(do[signingRequest](t)(client.Create(ctx, c, r, client.Warnings(&warnings))))
		if s := r.GetSpec(); s.GetUsername() != "alice" || s.GetUid() != "" || !slices.Equal(s.GetGroups(), []string{authz.GroupAdmins}) || len(s.GetExtra()) > 0 {
			t.Errorf("the request is of %v", s)
		}
		if len(warnings) != 1 || !strings.Contains(warnings[0], "nothing signs requests yet") {
			t.Errorf("warnings are %q", warnings)
		}
		r.Spec.Username, r.Spec.SignerName = "eve", "example.com/other"
		r = client.Clone(do[signingRequest](t)(client.Update(ctx, c, r)))
		if r.GetSpec().GetUsername() != "alice" || r.GetSpec().GetSignerName() != signer {
			t.Errorf("an update changed the spec: %v", r.GetSpec())
		}
		approve := []byte(`{"status":{"conditions":[{"type":"Approved","status":"True"}]}}`)
		_, err := client.Patch[signingRequest](ctx, c, "", "who", approve, client.Subresource("status"))
		refusedAs(t, err, `status.conditions: Forbidden: updates may not add a condition of type "Approved"`)
		if got := do[signingRequest](t)(client.Patch[signingRequest](ctx, c, "", "who", approve)); hasCondition(got, "Approved") {
			t.Error("a patch of the object approved it")
		}
		ungranted := client.New(as{ClientConnInterface: conn, User: "xebec:collector", Group: authz.GroupServices})
		_, err = client.Patch[signingRequest](ctx, ungranted, "", "who", approve, client.Subresource("approval"))
		refusedWith(t, err, "certificatesigningrequests/approval")
	})
	t.Run("no request is for the certificate of an administrator", func(t *testing.T) {
		r, _ := newRequest(t, "admin", pkix.Name{CommonName: "x", Organization: []string{authz.GroupAdmins}})
		r.Spec.SignerName = "kubernetes.io/kube-apiserver-client"
		_, err := client.Create(t.Context(), c, r)
		refusedWith(t, err, "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed")
	})
}
