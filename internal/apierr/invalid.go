package apierr

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/scheme"
)

const (
	// maxViolations and maxDescription bound what one broken object can make the server send back.
	maxViolations  = 100
	maxDescription = 512
	maxMessage     = 8 << 10
	// maxInMessage bounds how many of the violations the message repeats: it travels in a header.
	maxInMessage = 10
)

// violationReasons name the types of field error in BadRequest violations; ErrorList turns them
// back.
var violationReasons = map[field.ErrorType]string{
	field.ErrorTypeNotFound:     "VALUE_NOT_FOUND",
	field.ErrorTypeRequired:     "VALUE_REQUIRED",
	field.ErrorTypeDuplicate:    "VALUE_DUPLICATE",
	field.ErrorTypeInvalid:      "VALUE_INVALID",
	field.ErrorTypeNotSupported: "VALUE_NOT_SUPPORTED",
	field.ErrorTypeForbidden:    "VALUE_FORBIDDEN",
	field.ErrorTypeTooLong:      "VALUE_TOO_LONG",
	field.ErrorTypeTooShort:     "VALUE_TOO_SHORT",
	field.ErrorTypeTooMany:      "VALUE_TOO_MANY",
	field.ErrorTypeTooFew:       "VALUE_TOO_FEW",
	field.ErrorTypeTypeInvalid:  "VALUE_TYPE_INVALID",
	field.ErrorTypeInternal:     "VALUE_INTERNAL",
}

// Violation is one field that breaks a rule.
type Violation struct {
	// Field is the path of the field: spec.template.spec.containers[0].image.
	Field string
	// Description says what is wrong: Required value: must be set.
	Description string
	// Type is the class of the error, which Description begins with in words; empty when the server
	// gave none.
	Type field.ErrorType
}

// String is the violation as people read it.
func (v Violation) String() string {
	if v.Field == "" {
		return v.Description
	}
	return v.Field + ": " + v.Description
}

// Invalid says that an object breaks the rules of its kind: INVALID_ARGUMENT, with a violation per
// field. The message names them on one line, as people who use Kubernetes know it:
//
//	Deployment.apps "web" is invalid: spec.replicas: Invalid value: -1: must be at least 0
//
// With an empty list it returns nil.
func Invalid(k *scheme.Kind, name string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	bad := &errdetails.BadRequest{}
	var texts []string
	more := 0
	seen := map[string]bool{}
	for _, e := range errs {
		v := &errdetails.BadRequest_FieldViolation{
			Field:       shorten(e.Field),
			Description: shorten(e.ErrorBody()),
			Reason:      violationReasons[e.Type],
		}
		text := v.GetField() + ": " + v.GetDescription()
		if seen[text] {
			continue
		}
		seen[text] = true
		if len(seen) <= maxViolations {
			bad.FieldViolations = append(bad.FieldViolations, v)
		}
		if len(seen) <= maxInMessage {
			texts = append(texts, text)
		} else {
			more++
		}
	}
	if more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	list := texts[0]
	if len(texts) > 1 {
		list = "[" + strings.Join(texts, ", ") + "]"
	}
	return build(codes.InvalidArgument, ReasonInvalid,
		fmt.Sprintf("%s %q is invalid: %s", k.GroupKind(), shorten(name), list), object(k, name), bad)
}

func shorten(s string) string { return clip(s, maxDescription) }

// clip keeps a text valid UTF-8 and at most limit bytes long, not counting the ellipsis.
func clip(s string, limit int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= limit {
		return s
	}
	cut := limit
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
