package main

import (
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/storage"
	storagevalidation "k8s.io/kubernetes/pkg/apis/storage/validation"
	volumevalidation "k8s.io/kubernetes/pkg/volume/validation"
)

// addVolumes adds PersistentVolume and the kinds of storage.k8s.io about volumes and nodes.
func addVolumes(add func(reflect.Type, kind)) {
	volume := func(o, old *core.PersistentVolume) field.ErrorList {
		errs := corevalidation.ValidatePersistentVolume(o, corevalidation.ValidationOptionsForPersistentVolume(o, old))
		return append(errs, volumevalidation.ValidatePersistentVolume(o)...)
	}
	add(of(true,
		func(o *core.PersistentVolume) field.ErrorList {
			o.Status = core.PersistentVolumeStatus{Phase: core.VolumePending}
			return volume(o, nil)
		},
		func(o, old *core.PersistentVolume) field.ErrorList {
			o.Status = old.Status
			options := corevalidation.ValidationOptionsForPersistentVolume(o, old)
			return withoutDiffs(append(volume(o, old), corevalidation.ValidatePersistentVolumeUpdate(o, old, options)...))
		},
		func(o, old *core.PersistentVolume) field.ErrorList {
			o.Spec = old.Spec
			return corevalidation.ValidatePersistentVolumeStatusUpdate(o, old)
		}))
	add(of(true, storagevalidation.ValidateCSINode, storagevalidation.ValidateCSINodeUpdate, nil))
	add(of(true,
		func(o *storage.VolumeAttachment) field.ErrorList {
			o.Status = storage.VolumeAttachmentStatus{}
			return declared(o, nil, storagevalidation.ValidateVolumeAttachment(o))
		},
		func(o, old *storage.VolumeAttachment) field.ErrorList {
			o.Status = old.Status
			return declared(o, old, storagevalidation.ValidateVolumeAttachmentUpdate(o, old))
		},
		func(o, old *storage.VolumeAttachment) field.ErrorList {
			o.Spec = old.Spec
			return declared(o, old, storagevalidation.ValidateVolumeAttachmentUpdate(o, old))
		}))
	add(of(true, storagevalidation.ValidateVolumeAttributesClass, storagevalidation.ValidateVolumeAttributesClassUpdate, nil))
}

// withoutDiffs cuts what differs between two sources of a volume, which follows after a line break.
func withoutDiffs(errs field.ErrorList) field.ErrorList {
	for _, e := range errs {
		e.Detail, _, _ = strings.Cut(e.Detail, "\n")
	}
	return errs
}

// addServiceCIDR adds ServiceCIDR.
func addServiceCIDR(add func(reflect.Type, kind)) {
	add(of(true,
		func(o *networking.ServiceCIDR) field.ErrorList {
			o.Status = networking.ServiceCIDRStatus{}
			return networkingvalidation.ValidateServiceCIDR(o)
		},
		func(o, old *networking.ServiceCIDR) field.ErrorList {
			o.Status = old.Status
			return networkingvalidation.ValidateServiceCIDRUpdate(o, old)
		},
		func(o, old *networking.ServiceCIDR) field.ErrorList {
			o.Spec = old.Spec
			return networkingvalidation.ValidateServiceCIDRStatusUpdate(o, old)
		}))
}
