package certificates

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	certificatesv1 "github.com/xebec-project/xebec/proto/xebec/certificates/v1"
)

type condition = *certificatesv1.CertificateSigningRequestCondition

var (
	statusPath     = field.NewPath("status")
	conditionsPath = statusPath.Child("conditions")

	// decisions are the types of conditions that only the subresource approval writes.
	decisions = []string{Approved, Denied}
	// final are the types of conditions that are true, and stay.
	final    = []string{Approved, Denied, Failed}
	statuses = []string{"False", "True", "Unknown"}
)

// approval is the subresource that writes the conditions, Approved and Denied among them.
var approval = &scheme.Part{
	Fields:   []string{".status.conditions"},
	OfStatus: true,
	Restrict: func(new, old scheme.Object) {
		now, was := new.(signingRequest), old.(signingRequest)
		conditions := now.GetStatus().GetConditions()
		now.Spec, now.Status = proto.CloneOf(was.GetSpec()), proto.CloneOf(was.GetStatus())
		if now.Status == nil {
			now.Status = &certificatesv1.CertificateSigningRequestStatus{}
		}
		now.Status.Conditions = conditions
		setTimes(now, was)
	},
	Validate: func(new, old scheme.Object) field.ErrorList {
		c := &rules.Checker{}
		checkStatus(new.(signingRequest), old.(signingRequest), c)
		return c.List
	},
}

// prepareStatus restores the conditions that only the subresource approval changes.
func prepareStatus(now, old signingRequest) {
	for _, name := range decisions {
		was, at := conditionsOf(old, name), indexesOf(now, name)
		if len(was) != len(at) {
			continue // added or removed, which the check refuses
		}
		for i, j := range at {
			now.Status.Conditions[j] = proto.CloneOf(was[i])
		}
	}
	setTimes(now, old)
}

// setTimes sets the times that conditions lack. The time of the last transition is that of the same
// condition in old.
func setTimes(now, old signingRequest) {
	time := timestamppb.Now()
	time.Nanos = 0
	for _, c := range now.GetStatus().GetConditions() {
		if c.GetLastUpdateTime() == nil {
			c.LastUpdateTime = time
		}
		if c.GetLastTransitionTime() != nil {
			continue
		}
		c.LastTransitionTime = time
		for _, was := range conditionsOf(old, c.GetType()) {
			if was.GetStatus() == c.GetStatus() && was.GetLastTransitionTime() != nil {
				c.LastTransitionTime = was.GetLastTransitionTime()
				break
			}
		}
	}
}

func indexesOf(r signingRequest, conditionType string) []int {
	var out []int
	for i, c := range r.GetStatus().GetConditions() {
		if c.GetType() == conditionType {
			out = append(out, i)
		}
	}
	return out
}

func conditionsOf(r signingRequest, conditionType string) []condition {
	var out []condition
	for _, i := range indexesOf(r, conditionType) {
		out = append(out, r.GetStatus().GetConditions()[i])
	}
	return out
}

// checkStatus checks a status, by whichever subresource it is written.
func checkStatus(now, old signingRequest, c *rules.Checker) {
	seen := rules.Names{}
	for i, condition := range now.GetStatus().GetConditions() {
		p := conditionsPath.Index(i)
		if condition.GetType() == "" {
			c.Required(p.Child("type"), "")
		}
		allowed := statuses
		if slices.Contains(final, condition.GetType()) {
			allowed = []string{"True"}
		}
		switch {
		case condition.GetStatus() == "":
			c.Required(p.Child("status"), "")
		case !slices.Contains(allowed, condition.GetStatus()):
			c.Add(field.NotSupported(p.Child("status"), condition.GetStatus(), allowed))
		}
		if condition.GetType() == Approved && seen[Denied] || condition.GetType() == Denied && seen[Approved] {
			c.Invalid(conditionsPath, condition.GetType(), "Approved and Denied conditions are mutually exclusive")
		}
		c.Unique(p.Child("type"), seen, condition.GetType())
	}
	for _, name := range final {
		if len(conditionsOf(now, name)) < len(conditionsOf(old, name)) {
			c.Forbidden(conditionsPath, fmt.Sprintf("updates may not remove a condition of type %q", name))
		}
	}
}

// checkDecisionKept refuses decisions by a write to the status.
func checkDecisionKept(now, old signingRequest, c *rules.Checker) {
	for _, name := range decisions {
		if len(conditionsOf(now, name)) > len(conditionsOf(old, name)) {
			c.Forbidden(conditionsPath, fmt.Sprintf("updates may not add a condition of type %q", name))
		}
	}
}

// checkCertificate checks a certificate that a signer writes, which it may do once.
func checkCertificate(now, old signingRequest, c *rules.Checker) {
	p, certificate, was := statusPath.Child("certificate"), now.GetStatus().GetCertificate(), old.GetStatus().GetCertificate()
	if bytes.Equal(certificate, was) {
		return
	}
	if err := parseCertificates(certificate); err != nil {
		c.Invalid(p, "<certificate data>", err.Error())
	}
	if len(was) > 0 {
		c.Forbidden(p, "updates may not modify existing certificate content")
	}
}

// parseCertificates reports what is wrong with the PEM blocks of certificates. No text is fine.
func parseCertificates(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	for blocks := 0; ; blocks++ {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			if blocks == 0 {
				return errors.New("must contain at least one CERTIFICATE PEM block")
			}
			return nil
		}
		if block.Type != certificateBlock {
			return fmt.Errorf("only CERTIFICATE PEM blocks are allowed, found %q", block.Type)
		}
		if len(block.Headers) != 0 {
			return errors.New("no PEM block headers are permitted")
		}
		parsed, err := x509.ParseCertificates(block.Bytes)
		if err != nil {
			return err
		}
		if len(parsed) == 0 {
			return errors.New("found CERTIFICATE PEM block containing 0 certificates")
		}
	}
}
