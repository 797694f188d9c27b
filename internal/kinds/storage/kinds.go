package storage

import (
	"github.com/xebec-project/xebec/internal/scheme"
	storagev1 "github.com/xebec-project/xebec/proto/xebec/storage/v1"
)

// Kinds are the kinds of the group storage.k8s.io, by name.
var Kinds = []*scheme.Kind{
	{
		Group: "storage.k8s.io", Version: "v1", Name: "CSIDriver", Plural: "csidrivers", Singular: "csidriver",
		New:     func() scheme.Object { return new(storagev1.CSIDriver) },
		Columns: csiDriverColumns, Rules: csiDriverRules,
	},
	{
		Group: "storage.k8s.io", Version: "v1", Name: "CSINode", Plural: "csinodes", Singular: "csinode",
		New:     func() scheme.Object { return new(storagev1.CSINode) },
		Columns: csiNodeColumns, Rules: csiNodeRules,
	},
	{
		Group: "storage.k8s.io", Version: "v1", Name: "CSIStorageCapacity", Plural: "csistoragecapacities", Singular: "csistoragecapacity",
		Namespaced: true,
		New:        func() scheme.Object { return new(storagev1.CSIStorageCapacity) },
		Columns:    csiStorageCapacityColumns, Rules: csiStorageCapacityRules,
	},
	{
		Group: "storage.k8s.io", Version: "v1", Name: "StorageClass", Plural: "storageclasses", Singular: "storageclass",
		ShortNames: []string{"sc"},
		New:        func() scheme.Object { return new(storagev1.StorageClass) },
		Columns:    storageClassColumns, Rules: storageClassRules,
	},
	{
		Group: "storage.k8s.io", Version: "v1", Name: "VolumeAttachment", Plural: "volumeattachments", Singular: "volumeattachment",
		Subresources: scheme.StatusOnly,
		New:          func() scheme.Object { return new(storagev1.VolumeAttachment) },
		Columns:      volumeAttachmentColumns, Rules: volumeAttachmentRules,
	},
	{
		Group: "storage.k8s.io", Version: "v1", Name: "VolumeAttributesClass",
		Plural: "volumeattributesclasses", Singular: "volumeattributesclass", ShortNames: []string{"vac"},
		New:     func() scheme.Object { return new(storagev1.VolumeAttributesClass) },
		Columns: volumeAttributesClassColumns, Rules: volumeAttributesClassRules,
	},
}
