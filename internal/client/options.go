package client

import (
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// CreateOption changes a Create.
type CreateOption interface{ applyCreate(*createCall) }

// UpdateOption changes an Update.
type UpdateOption interface{ applyUpdate(*updateCall) }

// ApplyOption changes an Apply.
type ApplyOption interface{ applyApply(*applyCall) }

// PatchOption changes a Patch.
type PatchOption interface{ applyPatch(*patchCall) }

// DeleteOption changes a Delete.
type DeleteOption interface{ applyDelete(*apiv1.DeleteRequest) }

// DeleteCollectionOption changes a DeleteCollection.
type DeleteCollectionOption interface {
	applyDeleteCollection(*apiv1.DeleteCollectionRequest)
}

// The calls pair a request with where its warnings go.
type (
	createCall struct {
		*apiv1.CreateRequest
		warnings *[]string
	}
	updateCall struct {
		*apiv1.UpdateRequest
		warnings *[]string
	}
	applyCall struct {
		*apiv1.ApplyRequest
		warnings *[]string
	}
	patchCall struct {
		*apiv1.PatchRequest
		warnings *[]string
	}
)

func keepWarnings(to *[]string, from []string) {
	if to != nil {
		*to = append(*to, from...)
	}
}

type dryRun struct{}

// DryRun makes the server check a write and return its result, and store nothing.
var DryRun dryRun

func (dryRun) applyCreate(c *createCall)                              { c.DryRun = true }
func (dryRun) applyUpdate(c *updateCall)                              { c.DryRun = true }
func (dryRun) applyApply(c *applyCall)                                { c.DryRun = true }
func (dryRun) applyPatch(c *patchCall)                                { c.DryRun = true }
func (dryRun) applyDelete(r *apiv1.DeleteRequest)                     { r.DryRun = true }
func (dryRun) applyDeleteCollection(r *apiv1.DeleteCollectionRequest) { r.DryRun = true }

type warningsTo struct{ to *[]string }

// Warnings appends the server's warnings for the user, such as about fields without effect, to *to.
func Warnings(to *[]string) warningsTo { return warningsTo{to} }

func (w warningsTo) applyCreate(c *createCall) { c.warnings = w.to }
func (w warningsTo) applyUpdate(c *updateCall) { c.warnings = w.to }
func (w warningsTo) applyApply(c *applyCall)   { c.warnings = w.to }
func (w warningsTo) applyPatch(c *patchCall)   { c.warnings = w.to }

type subresource string

// Subresource writes a part of the object by the subresource of this name, such as "resize" of
// pods. The whole object is sent, and what the subresource does not change is ignored.
func Subresource(name string) subresource { return subresource(name) }

func (s subresource) applyUpdate(c *updateCall) { c.Subresource = string(s) }
func (s subresource) applyApply(c *applyCall)   { c.Subresource = string(s) }
func (s subresource) applyPatch(c *patchCall)   { c.Subresource = string(s) }

type underLease int64

// UnderLease ties the object's life to a lease: it vanishes when the lease lapses or is revoked. An
// update moves an object that is under another lease.
func UnderLease(id int64) underLease { return underLease(id) }

func (l underLease) applyCreate(c *createCall) { c.LeaseId = int64(l) }
func (l underLease) applyUpdate(c *updateCall) { c.LeaseId = int64(l) }

type force struct{}

// Force makes an Apply take conflicting fields over from their owners.
var Force ApplyOption = force{}

func (force) applyApply(c *applyCall) { c.Force = true }

type jsonPatch struct{}

// JSONPatch says that the patch is a JSON patch of RFC 6902 and not a merge patch.
var JSONPatch PatchOption = jsonPatch{}

func (jsonPatch) applyPatch(c *patchCall) { c.Type = apiv1.PatchType_PATCH_TYPE_JSON }

type strategicPatch struct{}

// StrategicPatch says that the patch is a strategic merge patch, which merges lists by their keys.
var StrategicPatch PatchOption = strategicPatch{}

func (strategicPatch) applyPatch(c *patchCall) { c.Type = apiv1.PatchType_PATCH_TYPE_STRATEGIC }

type gracePeriod int64

// GracePeriod sets how many seconds the object gets to stop; 0 removes it at once. Without it the
// object's own default holds.
func GracePeriod(seconds int64) gracePeriod { return gracePeriod(seconds) }

func (g gracePeriod) applyDelete(r *apiv1.DeleteRequest) { r.GracePeriodSeconds = (*int64)(&g) }
func (g gracePeriod) applyDeleteCollection(r *apiv1.DeleteCollectionRequest) {
	r.GracePeriodSeconds = (*int64)(&g)
}

type propagation apiv1.PropagationPolicy

// The policies for the dependents of a deleted object; background is the default.
const (
	Background propagation = propagation(apiv1.PropagationPolicy_PROPAGATION_POLICY_BACKGROUND)
	Foreground propagation = propagation(apiv1.PropagationPolicy_PROPAGATION_POLICY_FOREGROUND)
	Orphan     propagation = propagation(apiv1.PropagationPolicy_PROPAGATION_POLICY_ORPHAN)
)

func (p propagation) applyDelete(r *apiv1.DeleteRequest) {
	r.PropagationPolicy = apiv1.PropagationPolicy(p)
}
func (p propagation) applyDeleteCollection(r *apiv1.DeleteCollectionRequest) {
	r.PropagationPolicy = apiv1.PropagationPolicy(p)
}

type ifUID string

// IfUID deletes only the object of this uid; another one by the same name makes a conflict.
func IfUID(uid string) DeleteOption { return ifUID(uid) }

func (u ifUID) applyDelete(r *apiv1.DeleteRequest) { r.Uid = string(u) }

type ifResourceVersion string

// IfResourceVersion deletes only this version of the object; another one makes a conflict.
func IfResourceVersion(v string) DeleteOption { return ifResourceVersion(v) }

func (v ifResourceVersion) applyDelete(r *apiv1.DeleteRequest) { r.ResourceVersion = string(v) }
