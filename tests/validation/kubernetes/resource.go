package main

import (
	"maps"
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/resource"
	resourcevalidation "k8s.io/kubernetes/pkg/apis/resource/validation"
)

func addResource(add func(reflect.Type, kind)) {
	add(of(true, resourcevalidation.ValidateDeviceClass, resourcevalidation.ValidateDeviceClassUpdate, nil))
	add(of(false,
		func(o *resource.ResourceClaim) field.ErrorList {
			o.Status = resource.ResourceClaimStatus{}
			return resourcevalidation.ValidateResourceClaim(o)
		},
		func(o, old *resource.ResourceClaim) field.ErrorList {
			o.Status = old.Status
			return resourcevalidation.ValidateResourceClaimUpdate(o, old)
		},
		func(o, old *resource.ResourceClaim) field.ErrorList {
			o.Spec = old.Spec
			dropDeallocated(o, old)
			return resourcevalidation.ValidateResourceClaimStatusUpdate(o, old)
		}))
	add(of(false, resourcevalidation.ValidateResourceClaimTemplate, resourcevalidation.ValidateResourceClaimTemplateUpdate, nil))
	add(of(true,
		func(o *resource.ResourceSlice) field.ErrorList {
			dropAlpha(o)
			return resourcevalidation.ValidateResourceSlice(o)
		},
		func(o, old *resource.ResourceSlice) field.ErrorList {
			dropAlpha(o)
			return resourcevalidation.ValidateResourceSliceUpdate(o, old)
		}, nil))
}

// dropDeallocated does what the strategy of the status of claims does with what drivers reported of
// devices that are no longer allocated.
func dropDeallocated(o, old *resource.ResourceClaim) {
	type device struct{ driver, pool, name, share string }
	allocated := func(r *resource.ResourceClaim) map[device]bool {
		m := map[device]bool{}
		if r.Status.Allocation == nil {
			return m
		}
		for _, d := range r.Status.Allocation.Devices.Results {
			id := device{d.Driver, d.Pool, d.Device, ""}
			if d.ShareID != nil {
				id.share = string(*d.ShareID)
			}
			m[id] = true
		}
		return m
	}
	before := allocated(old)
	maps.DeleteFunc(before, func(d device, _ bool) bool { return allocated(o)[d] })
	o.Status.Devices = slices.DeleteFunc(o.Status.Devices, func(d resource.AllocatedDeviceStatus) bool {
		id := device{d.Driver, d.Pool, d.Device, ""}
		if d.ShareID != nil {
			id.share = *d.ShareID
		}
		return before[id]
	})
}

// dropAlpha does what the strategy of slices does with fields whose features are off.
func dropAlpha(o *resource.ResourceSlice) {
	for i := range o.Spec.Devices {
		d := &o.Spec.Devices[i]
		d.NodeAllocatableResourceMappings = nil
		for name, a := range d.Attributes {
			a.BoolValues, a.IntValues, a.StringValues, a.VersionValues = nil, nil, nil, nil
			d.Attributes[name] = a
		}
	}
}
