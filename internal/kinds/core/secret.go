package core

import (
	"bytes"
	"encoding/json"
	"maps"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Types of secret whose keys are checked, and the annotation that a token names its account by.
const (
	SecretOpaque              = "Opaque"
	SecretServiceAccountToken = "kubernetes.io/service-account-token"
	SecretDockercfg           = "kubernetes.io/dockercfg"
	SecretDockerConfigJSON    = "kubernetes.io/dockerconfigjson"
	SecretBasicAuth           = "kubernetes.io/basic-auth"
	SecretSSHAuth             = "kubernetes.io/ssh-auth"
	SecretTLS                 = "kubernetes.io/tls"

	AnnotationServiceAccountName = "kubernetes.io/service-account.name"
)

var (
	secretRules = rules.For[*corev1.Secret]{
		Name:        rules.NameIsSubdomain,
		Defaults:    foldStringData,
		Check:       checkSecret,
		CheckUpdate: checkSecretUpdate,
	}
	secretColumns = []scheme.Column{
		column.At(".type", column.New("TYPE", (*corev1.Secret).GetType)),
		column.New("DATA", func(s *corev1.Secret) string { return strconv.Itoa(len(s.GetData())) }),
		column.AgeColumn,
	}
	secretFields = map[string][]protowire.Number{"type": {3}}
)

// FoldWriteOnly returns o, or a copy in which fields that exist only for writing stand where they
// are stored: a Secret's stringData in its data, over keys that are in both. Owners of applied
// fields are recorded of what is stored.
func FoldWriteOnly(o scheme.Object) scheme.Object {
	s, ok := o.(*corev1.Secret)
	if !ok || len(s.GetStringData()) == 0 {
		return o
	}
	s = proto.Clone(s).(*corev1.Secret)
	foldStringData(s)
	return s
}

// StoredAs names the member of objects of a kind that exists only for writing, and the one that it
// is stored as; both are empty for most kinds.
func StoredAs(k *scheme.Kind) (stored, written string) {
	if k.Group == "" && k.Name == "Secret" {
		return "data", "stringData"
	}
	return "", ""
}

// foldStringData moves stringData, which exists only for writing, into data.
func foldStringData(s *corev1.Secret) {
	for key, value := range s.GetStringData() {
		if s.Data == nil {
			s.Data = map[string][]byte{}
		}
		s.Data[key] = []byte(value)
	}
	s.StringData = nil
}

func checkSecret(s *corev1.Secret, c *rules.Checker) {
	data := field.NewPath("data")
	size := 0
	for _, value := range s.GetData() {
		size += len(value)
	}
	if size > MaxConfigSize {
		c.Add(field.TooLong(data, "", MaxConfigSize))
	}
	has := func(key string) bool { _, ok := s.GetData()[key]; return ok }
	need := func(key string) {
		if !has(key) {
			c.Required(data.Key(key), "")
		}
	}
	needJSON := func(key string) {
		need(key)
		// The value stays out of the message: it is a secret.
		if has(key) && !json.Valid(s.GetData()[key]) {
			c.Invalid(data.Key(key), "<secret contents redacted>", "must be valid JSON")
		}
	}
	switch s.GetType() {
	case SecretServiceAccountToken:
		if s.GetMetadata().GetAnnotations()[AnnotationServiceAccountName] == "" {
			c.Required(rules.MetadataPath.Child("annotations").Key(AnnotationServiceAccountName), "")
		}
	case SecretDockercfg:
		needJSON(".dockercfg")
	case SecretDockerConfigJSON:
		needJSON(".dockerconfigjson")
	case SecretBasicAuth:
		if !has("username") && !has("password") {
			c.Required(data.Key("username"), "")
			c.Required(data.Key("password"), "")
		}
	case SecretSSHAuth:
		if len(s.GetData()["ssh-privatekey"]) == 0 {
			c.Required(data.Key("ssh-privatekey"), "")
		}
	case SecretTLS:
		need("tls.crt")
		need("tls.key")
	}
}

func checkSecretUpdate(new, old *corev1.Secret, c *rules.Checker) {
	if !old.GetImmutable() {
		return
	}
	if !new.GetImmutable() {
		c.Forbidden(field.NewPath("immutable"), lockedWhenImmutable)
	}
	if !maps.EqualFunc(new.GetData(), old.GetData(), bytes.Equal) {
		c.Forbidden(field.NewPath("data"), lockedWhenImmutable)
	}
}
