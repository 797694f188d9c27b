package admission

import (
	"context"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kinds"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	resourcev1 "github.com/xebec-project/xebec/proto/xebec/resource/v1"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// adminAccessLabel is the label of namespaces, with the value true, in which claims get access to
// devices that are in use by others.
const adminAccessLabel = "resource.kubernetes.io/admin-access"

// deviceAdminAccess refuses claims of devices for their administration, and allocations to such
// claims, in namespaces without the label for it. In Kubernetes the strategies of the kinds do so.
type deviceAdminAccess struct{}

// Name names the plug-in.
func (deviceAdminAccess) Name() string { return "DeviceAdminAccess" }

// Validate refuses the write unless the namespace has the label.
func (deviceAdminAccess) Validate(ctx context.Context, a *Attributes) error {
	at := adminAccessOf(a)
	if at == nil {
		return nil
	}
	stored, err := a.Get(ctx, registry.KeyOf(kinds.Of(new(corev1.Namespace)), "", a.Namespace))
	if err != nil {
		return storage.APIError(err)
	}
	if stored.Meta().GetLabels()[adminAccessLabel] != "true" {
		return apierr.Invalid(a.Kind, a.Name, field.ErrorList{field.Forbidden(at,
			"admin access to devices requires the `"+adminAccessLabel+": true` label on the containing namespace")})
	}
	a.Conditions = append(a.Conditions, storage.Condition{Key: stored.Key, Revision: stored.Revision})
	return nil
}

// adminAccessOf returns the first field by which a write asks for access that the stored object
// lacks; nil when there is none. The spec never changes.
func adminAccessOf(a *Attributes) *field.Path {
	switch o := a.Object.(type) {
	case *resourcev1.ResourceClaim:
		if a.Operation == Create {
			return requestedAdminAccess(field.NewPath("spec", "devices", "requests"), o.GetSpec())
		}
		was, _ := a.Old.(*resourcev1.ResourceClaim)
		p := field.NewPath("status", "allocation", "devices", "results")
		if grantedAdminAccess(p, was.GetStatus()) != nil {
			return nil
		}
		return grantedAdminAccess(p, o.GetStatus())
	case *resourcev1.ResourceClaimTemplate:
		if a.Operation == Create {
			return requestedAdminAccess(field.NewPath("spec", "spec", "devices", "requests"), o.GetSpec().GetSpec())
		}
	}
	return nil
}

func requestedAdminAccess(p *field.Path, spec *resourcev1.ResourceClaimSpec) *field.Path {
	for i, r := range spec.GetDevices().GetRequests() {
		if r.GetExactly().GetAdminAccess() {
			return p.Index(i).Child("exactly", "adminAccess")
		}
	}
	return nil
}

func grantedAdminAccess(p *field.Path, status *resourcev1.ResourceClaimStatus) *field.Path {
	for i, r := range status.GetAllocation().GetDevices().GetResults() {
		if r.GetAdminAccess() {
			return p.Index(i).Child("adminAccess")
		}
	}
	return nil
}
