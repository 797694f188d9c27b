package authz

import (
	"slices"
	"strings"

	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/token"
)

// Groups with rights of their own.
const (
	GroupAdmins   = pki.GroupMasters
	GroupServices = pki.GroupServices
	GroupNodes    = pki.GroupNodes
	GroupAccounts = token.GroupAccounts
)

// AccountUser returns the user of a service account.
func AccountUser(namespace, name string) string { return token.AccountUser(namespace, name) }

// Caller is the user that makes a request, and the user's groups.
type Caller struct {
	User   string
	Groups []string
}

// In reports whether the caller is in a group.
func (c Caller) In(group string) bool { return slices.Contains(c.Groups, group) }

// Node returns the node's name when the caller is a node agent.
func (c Caller) Node() (string, bool) {
	name, ok := strings.CutPrefix(c.User, pki.NodeUserPrefix)
	return name, ok && name != "" && c.In(GroupNodes)
}

// Service returns the service's name when the caller is a control-plane service.
func (c Caller) Service() (string, bool) {
	name, ok := strings.CutPrefix(c.User, pki.ServiceUserPrefix)
	return name, ok && name != "" && c.In(GroupServices)
}

// Narrows reports whether the caller may have a right to a part of a kind, which a field selector
// chooses, without a right to all of it: a node to its own pods and to the objects they use, a
// service to its election.
func (c Caller) Narrows() bool {
	_, node := c.Node()
	_, service := c.Service()
	return node || service
}
