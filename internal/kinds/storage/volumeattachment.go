package storage

import (
	"strconv"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	storagev1 "github.com/xebec-project/xebec/proto/xebec/storage/v1"
)

// Limits of what a driver reports of an attachment, in bytes.
const (
	maxAttachmentMetadata = 256 << 10
	maxErrorMessage       = 1024
)

var (
	volumeAttachmentRules = rules.For[*storagev1.VolumeAttachment]{
		Name:  rules.NameIsSubdomain,
		Check: checkVolumeAttachment,
		CheckUpdate: func(now, old *storagev1.VolumeAttachment, c *rules.Checker) {
			if !proto.Equal(now.GetSpec(), old.GetSpec()) {
				c.Invalid(field.NewPath("spec"), field.OmitValueType{}, rules.Immutable)
			}
		},
		CheckStatus: func(now, _ *storagev1.VolumeAttachment, c *rules.Checker) {
			checkVolumeAttachmentStatus(now.GetStatus(), c)
		},
		Warn: func(*storagev1.VolumeAttachment) []string {
			return []string{"spec: VolumeAttachments have no effect yet: volumes are not attached to nodes"}
		},
	}
	volumeAttachmentColumns = []scheme.Column{
		column.At(".spec.attacher", column.New("ATTACHER", func(a *storagev1.VolumeAttachment) string { return a.GetSpec().GetAttacher() })),
		column.At(".spec.source.persistentVolumeName", column.New("PV", func(a *storagev1.VolumeAttachment) string {
			return a.GetSpec().GetSource().GetPersistentVolumeName()
		})),
		column.At(".spec.nodeName", column.New("NODE", func(a *storagev1.VolumeAttachment) string { return a.GetSpec().GetNodeName() })),
		column.New("ATTACHED", func(a *storagev1.VolumeAttachment) string { return strconv.FormatBool(a.GetStatus().GetAttached()) }),
		column.AgeColumn,
	}
)

func checkVolumeAttachment(a *storagev1.VolumeAttachment, c *rules.Checker) {
	p, spec := field.NewPath("spec"), a.GetSpec()
	core.CheckDriverName(c, p.Child("attacher"), spec.GetAttacher())
	const exactlyOne = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
	at, source := p.Child("source"), spec.GetSource()
	named := source != nil && source.PersistentVolumeName != nil
	switch inline := source.GetInlineVolumeSpec(); {
	case inline != nil && named:
		c.Forbidden(at, exactlyOne)
	case inline != nil:
		core.CheckInlineVolume(c, at.Child("inlineVolumeSpec"), inline)
	case !named:
		c.Required(at, exactlyOne)
	case source.GetPersistentVolumeName() == "":
		c.Required(at.Child("persistentVolumeName"), "must specify non empty persistentVolumeName")
	}
}

func checkVolumeAttachmentStatus(s *storagev1.VolumeAttachmentStatus, c *rules.Checker) {
	p, size := field.NewPath("status"), 0
	for key, value := range s.GetAttachmentMetadata() {
		size += len(key) + len(value)
	}
	if size > maxAttachmentMetadata {
		c.Add(field.TooLong(p.Child("attachmentMetadata"), "", maxAttachmentMetadata))
	}
	for _, e := range []struct {
		field string
		err   *storagev1.VolumeError
	}{{"attachError", s.GetAttachError()}, {"detachError", s.GetDetachError()}} {
		if len(e.err.GetMessage()) > maxErrorMessage {
			c.Add(field.TooLong(p.Child(e.field, "message"), "", maxErrorMessage))
		}
	}
}
