package authz

import (
	"context"
	"slices"
)

// Accounts allows service accounts what the apiserver's configuration says.
type Accounts struct {
	// Readers and Admins are the users of service accounts that may read every kind but secrets, and
	// write every kind.
	Readers, Admins map[string]bool
}

// onObjects are the actions of an administering service account. Calls to nodes and the control
// plane are for administrators.
var onObjects = []Action{
	Get, List, Watch, Create, Update, Patch, Delete, DeleteCollection, UpdateStatus, GetScale, UpdateScale, PatchScale, Bind, Evict,
	WatchSummary,
	"get/resize", "update/resize", "patch/resize", "get/ephemeralcontainers", "update/ephemeralcontainers", "patch/ephemeralcontainers",
	"get/approval", "update/approval", "patch/approval", "approve", "sign",
}

// Authorize implements Authorizer.
func (s Accounts) Authorize(_ context.Context, a Attributes) (Decision, string, error) {
	user := a.Caller.User
	switch {
	case !a.Caller.In(GroupAccounts):
		return NoOpinion, "", nil
	case s.Admins[user] && a.Resource != "" && slices.Contains(onObjects, a.Action()):
		return Allow, "", nil
	case s.Admins[user]:
		return NoOpinion, "the account has rights to objects only", nil
	case s.Readers[user] && a.Resource != "" && a.GroupResource() != "secrets" && slices.Contains(read, a.Action()):
		return Allow, "", nil
	case s.Readers[user]:
		return NoOpinion, "it only reads, and no secrets: the apiserver's configuration lists it in serviceAccounts.readers", nil
	}
	return NoOpinion, "a service account has no rights unless the apiserver's configuration names it (serviceAccounts.readers or admins)", nil
}
