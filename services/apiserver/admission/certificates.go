package admission

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/kinds/certificates"
	certificatesv1 "github.com/xebec-project/xebec/proto/xebec/certificates/v1"
)

// signing records who makes a certificate signing request, and refuses approvals and certificates
// of users who have no right to those of the signer. It does the work of Kubernetes' plug-ins
// CertificateApproval, CertificateSigning and CertificateSubjectRestriction.
type signing struct {
	authorize func(ctx context.Context, caller authz.Caller, a authz.Attributes) error
}

// Name names it after the largest of Kubernetes' plug-ins.
func (signing) Name() string { return "CertificateApproval" }

// Mutate sets the user in a new request, whatever the client sent.
func (signing) Mutate(_ context.Context, a *Attributes) error {
	r, ok := a.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok || a.Operation != Create || r.GetSpec() == nil {
		return nil
	}
	r.Spec.Username, r.Spec.Groups = a.Caller.User, slices.Clone(a.Caller.Groups)
	r.Spec.Uid, r.Spec.Extra = "", nil
	return nil
}

// Validate checks the right to approve or sign by the stored request.
func (s signing) Validate(ctx context.Context, a *Attributes) error {
	r, ok := a.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return nil
	}
	if a.Operation == Create {
		return checkSubject(a, r)
	}
	old := a.Old.(*certificatesv1.CertificateSigningRequest)
	switch {
	case a.Subresource == certificates.SubresourceApproval:
		return s.allowed(ctx, a, "approve", old.GetSpec().GetSignerName())
	case a.Subresource == "status" && !proto.Equal(r.GetStatus(), old.GetStatus()):
		return s.allowed(ctx, a, "sign", old.GetSpec().GetSignerName())
	}
	return nil
}

// checkSubject refuses requests of certificates that make their holder an administrator.
func checkSubject(a *Attributes, r *certificatesv1.CertificateSigningRequest) error {
	if r.GetSpec().GetSignerName() != certificates.SignerClient {
		return nil
	}
	parsed, err := certificates.ParseRequest(r.GetSpec().GetRequest())
	if err != nil {
		return apierr.Forbidden(a.Kind, a.Name, fmt.Sprintf("failed to parse CSR: %v", err))
	}
	if slices.Contains(parsed.Subject.Organization, authz.GroupAdmins) {
		return apierr.Forbidden(a.Kind, a.Name,
			fmt.Sprintf("use of %s signer with %s group is not allowed", certificates.SignerClient, authz.GroupAdmins))
	}
	return nil
}

// allowed checks the right to a verb on a signer, or on all signers of its domain.
func (s signing) allowed(ctx context.Context, a *Attributes, verb, signer string) error {
	domain, _, _ := strings.Cut(signer, "/")
	for _, name := range []string{signer, domain + "/*"} {
		err := s.authorize(ctx, a.Caller, authz.Attributes{Verb: verb, Group: certificates.Group, Resource: "signers", Name: name})
		if !apierr.IsForbidden(err) {
			return err
		}
	}
	return apierr.Forbidden(a.Kind, a.Name, fmt.Sprintf("user not permitted to %s requests with signerName %q", verb, signer))
}
