package resource

import (
	"strings"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
)

// Limits of the two parts of the name of an attribute or a capacity.
const (
	maxDomain     = 63
	maxIdentifier = 32
)

// checkDriver checks the name of a driver, whose length is a rule of the schema. An empty one
// passes.
func checkDriver(c *rules.Checker, p *field.Path, name string) {
	if name != "" {
		c.Each(p, name, validation.IsDNS1123Subdomain(strings.ToLower(name)))
	}
}

// checkPool checks the name of a pool, whose length is a rule of the schema. An empty one passes.
func checkPool(c *rules.Checker, p *field.Path, name string) {
	if name == "" {
		return
	}
	for part := range strings.SplitSeq(name, "/") {
		c.Each(p, part, validation.IsDNS1123Subdomain(part))
	}
}

// checkQualifiedName checks the name of an attribute or a capacity: a C identifier, after a domain
// unless that is the driver's. As in Kubernetes, names with further slashes pass.
func checkQualifiedName(c *rules.Checker, p *field.Path, name string) {
	switch parts := strings.Split(name, "/"); len(parts) {
	case 1:
		checkIdentifier(c, p, parts[0])
	case 2:
		if parts[0] == "" {
			c.Invalid(p, "", "the domain must not be empty")
		} else {
			if len(parts[0]) > maxDomain {
				c.Add(field.TooLong(p, "", maxDomain))
			}
			checkDriver(c, p, parts[0])
		}
		if parts[1] == "" {
			c.Invalid(p, "", "the name must not be empty")
		} else {
			checkIdentifier(c, p, parts[1])
		}
	}
}

// checkFullName checks the name of an attribute of which the domain is required.
func checkFullName(c *rules.Checker, p *field.Path, name string) {
	checkQualifiedName(c, p, name)
	if !strings.Contains(name, "/") {
		c.Invalid(p, name, "a fully qualified name must be a domain and a name separated by a slash")
	}
}

func checkIdentifier(c *rules.Checker, p *field.Path, id string) {
	if len(id) > maxIdentifier {
		c.Add(field.TooLong(p, "", maxIdentifier))
	}
	c.Each(p, id, content.IsCIdentifier(id))
}

// checkShareID checks a UUID in the form in which it is written.
func checkShareID(c *rules.Checker, p *field.Path, id *string) {
	if id == nil {
		return
	}
	switch parsed, err := uuid.Parse(*id); {
	case err != nil:
		c.Invalid(p, *id, "error validating uid: "+err.Error())
	case parsed.String() != *id:
		c.Invalid(p, *id, "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters")
	}
}
