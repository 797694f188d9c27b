package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	certificatesv1 "github.com/xebec-project/xebec/proto/xebec/certificates/v1"
)

const (
	// SubresourceApproval is the subresource that approves and denies requests.
	SubresourceApproval = "approval"
	// Approved is the type of the condition of requests that a signer may sign.
	Approved = "Approved"
	// Denied is the type of the condition of requests that no signer may sign.
	Denied = "Denied"
	// Failed is the type of the condition of requests that the signer could not sign.
	Failed = "Failed"

	// SignerClient is the signer of client certificates for the API server.
	SignerClient = "kubernetes.io/kube-apiserver-client"
	// legacySigner was the signer of requests that named none.
	legacySigner = "kubernetes.io/legacy-unknown"
)

// The types of PEM blocks.
const (
	requestBlock     = "CERTIFICATE REQUEST"
	certificateBlock = "CERTIFICATE"
)

// usages are what certificates can be for, sorted.
var usages = []string{
	"any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment", "decipher only",
	"digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel", "ipsec user", "key agreement",
	"key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime", "server auth", "signing", "timestamping",
}

type signingRequest = *certificatesv1.CertificateSigningRequest

var (
	signingRequestRules = rules.For[signingRequest]{
		Name:  content.IsPathSegmentName,
		Check: checkSigningRequest,
		// As in Kubernetes, updates change the metadata alone.
		Update:        func(now, old signingRequest) { now.Spec = proto.CloneOf(old.GetSpec()) },
		PrepareStatus: prepareStatus,
		CheckStatus: func(now, old signingRequest, c *rules.Checker) {
			checkStatus(now, old, c)
			checkDecisionKept(now, old, c)
			checkCertificate(now, old, c)
		},
		Warn: func(signingRequest) []string {
			return []string{"spec: nothing signs requests yet: a signer of your own can, once the request is approved"}
		},
	}
	signingRequestColumns = []scheme.Column{
		column.AgeColumn,
		column.At(".spec.signerName", column.New("SIGNERNAME", func(r signingRequest) string {
			return column.OrNone(r.GetSpec().GetSignerName())
		})),
		column.At(".spec.username", column.New("REQUESTOR", func(r signingRequest) string { return r.GetSpec().GetUsername() })),
		column.New("REQUESTEDDURATION", func(r signingRequest) string {
			if r.GetSpec() == nil || r.Spec.ExpirationSeconds == nil {
				return column.None
			}
			return column.HumanDuration(time.Duration(r.Spec.GetExpirationSeconds()) * time.Second)
		}),
		column.New("CONDITION", state),
	}
)

// state is the decision on a request and what became of it, in a word or more.
func state(r signingRequest) string {
	out := "Pending"
	switch {
	case len(conditionsOf(r, Denied)) > 0:
		out = Denied
	case len(conditionsOf(r, Approved)) > 0:
		out = Approved
	}
	if len(conditionsOf(r, Failed)) > 0 {
		out += ",Failed"
	}
	if len(r.GetStatus().GetCertificate()) > 0 {
		out += ",Issued"
	}
	return out
}

// ParseRequest returns the request in a PEM block. It does not check its signature.
func ParseRequest(text []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != requestBlock {
		return nil, errors.New("PEM block type must be " + requestBlock)
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

func checkSigningRequest(r signingRequest, c *rules.Checker) {
	p, spec := field.NewPath("spec"), r.GetSpec()
	parsed, err := ParseRequest(spec.GetRequest())
	if err == nil {
		err = parsed.CheckSignature()
	}
	if err != nil {
		c.Invalid(p.Child("request"), field.OmitValueType{}, err.Error())
	}
	if len(spec.GetUsages()) == 0 {
		c.Required(p.Child("usages"), "")
	}
	seen := rules.Names{}
	for i, usage := range spec.GetUsages() {
		at := p.Child("usages").Index(i)
		if !slices.Contains(usages, usage) {
			c.Add(field.NotSupported(at, usage, usages))
		}
		c.Unique(at, seen, usage)
	}
	if spec.GetSignerName() == legacySigner {
		c.Invalid(p.Child("signerName"), spec.GetSignerName(), "the legacy signerName is not allowed via this API version")
	} else {
		checkSignerName(c, p.Child("signerName"), spec.GetSignerName())
	}
}

// checkSignerName checks that a name is a domain and a path below it: example.com/my-signer.
func checkSignerName(c *rules.Checker, p *field.Path, name string) {
	if name == "" {
		c.Required(p, "")
		return
	}
	domain, rest, ok := strings.Cut(name, "/")
	if !ok || strings.Contains(rest, "/") {
		c.Invalid(p, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")
		return
	}
	if len(domain) > validation.DNS1123SubdomainMaxLength {
		c.Add(field.TooLong(p, "", validation.DNS1123SubdomainMaxLength))
	}
	checkLabels(c, p, domain, validation.IsDNS1123Label)
	if !strings.Contains(domain, ".") {
		c.Invalid(p, domain, "should be a domain with at least two segments separated by dots")
	}
	checkLabels(c, p, rest, validation.IsDNS1123Subdomain)
	longest := 2*validation.DNS1123SubdomainMaxLength + validation.DNS1123LabelMaxLength + 2
	if len(name) > longest {
		c.Add(field.TooLong(p, "", longest))
	}
}

// checkLabels reports the first wrong label between the dots of a text.
func checkLabels(c *rules.Checker, p *field.Path, text string, wrong func(string) []string) {
	for label := range strings.SplitSeq(text, ".") {
		if messages := wrong(label); len(messages) > 0 {
			for _, m := range messages {
				c.Invalid(p, text, fmt.Sprintf("validating label %q: %s", label, m))
			}
			return
		}
	}
}
