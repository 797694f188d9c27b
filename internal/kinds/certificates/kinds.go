// Package certificates has the kinds of the group certificates.k8s.io.
package certificates

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/xebec-project/xebec/internal/scheme"
	certificatesv1 "github.com/xebec-project/xebec/proto/xebec/certificates/v1"
)

// Group is the API group.
const Group = "certificates.k8s.io"

// Kinds are the kinds of the group certificates.k8s.io, by name.
var Kinds = []*scheme.Kind{
	{
		Group: Group, Version: "v1", Name: "CertificateSigningRequest",
		Plural: "certificatesigningrequests", Singular: "certificatesigningrequest", ShortNames: []string{"csr"},
		Subresources: []scheme.Subresource{
			{Name: SubresourceApproval, Verbs: []string{"get", "patch", "update"}, Part: approval},
			scheme.StatusSubresource,
		},
		New:     func() scheme.Object { return new(certificatesv1.CertificateSigningRequest) },
		Columns: signingRequestColumns, Rules: signingRequestRules,
		Fields: map[string][]protowire.Number{"spec.signerName": {2, 7}},
	},
}
