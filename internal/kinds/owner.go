package kinds

import (
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// ControllerOf returns the owner reference of the object's managing controller, nil when it has
// none. The reference is the object's own: clone it before changing it.
func ControllerOf(o scheme.Object) *metav1.OwnerReference {
	for _, r := range o.GetMetadata().GetOwnerReferences() {
		if r.GetController() {
			return r
		}
	}
	return nil
}

// IsControlledBy reports whether owner manages the object. Owners are compared by uid: another
// object of the same name is another owner.
func IsControlledBy(o, owner scheme.Object) bool {
	r := ControllerOf(o)
	return r != nil && r.GetUid() == owner.GetMetadata().GetUid()
}

// NewControllerRef makes the reference that marks owner as the managing controller of another
// object, which holds back the owner's foreground deletion.
func NewControllerRef(owner scheme.Object) *metav1.OwnerReference {
	r := NewOwnerRef(owner)
	r.Controller = proto.Bool(true)
	r.BlockOwnerDeletion = proto.Bool(true)
	return r
}

// NewOwnerRef makes a reference to an owner that is not the managing controller.
func NewOwnerRef(owner scheme.Object) *metav1.OwnerReference {
	k, m := Of(owner), owner.GetMetadata()
	return &metav1.OwnerReference{ApiVersion: k.APIVersion(), Kind: k.Name, Name: m.GetName(), Uid: m.GetUid()}
}
