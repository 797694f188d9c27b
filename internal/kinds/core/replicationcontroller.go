package core

import (
	"maps"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

var (
	replicationControllerRules = rules.For[*corev1.ReplicationController]{
		Name:     rules.NameIsSubdomain,
		Defaults: defaultReplicationController,
		Check:    checkReplicationController,
		CheckStatus: func(new, _ *corev1.ReplicationController, c *rules.Checker) {
			checkReplicationControllerStatus(new.GetStatus(), c)
		},
		Warn: func(r *corev1.ReplicationController) []string {
			t := r.GetSpec().GetTemplate()
			return WarnPod(field.NewPath("spec", "template"), t.GetMetadata(), t.GetSpec())
		},
	}
	replicationControllerColumns = []scheme.Column{
		column.At(".spec.replicas", column.New("DESIRED", func(r *corev1.ReplicationController) string {
			return strconv.Itoa(int(r.GetSpec().GetReplicas()))
		})),
		column.At(".status.replicas", column.New("CURRENT", func(r *corev1.ReplicationController) string {
			return strconv.Itoa(int(r.GetStatus().GetReplicas()))
		})),
		column.At(".status.readyReplicas", column.New("READY", func(r *corev1.ReplicationController) string {
			return strconv.Itoa(int(r.GetStatus().GetReadyReplicas()))
		})),
		column.AgeColumn,
		column.Wide("CONTAINERS", func(r *corev1.ReplicationController) string { return TemplateContainers(r.GetSpec().GetTemplate()) }),
		column.Wide("IMAGES", func(r *corev1.ReplicationController) string { return TemplateImages(r.GetSpec().GetTemplate()) }),
		column.Wide("SELECTOR", func(r *corev1.ReplicationController) string { return column.FormatLabels(r.GetSpec().GetSelector()) }),
	}
	replicationControllerFields = map[string][]protowire.Number{"status.replicas": {3, 1}}
	replicationControllerScale  = &scheme.Scale{
		Replicas: ".spec.replicas", StatusReplicas: ".status.replicas", Selector: ".spec.selector",
	}
	replicationControllerSubresources = []scheme.Subresource{scheme.ScaleSubresource, scheme.StatusSubresource}
)

// defaultReplicationController takes labels and selector from the template where there are none.
func defaultReplicationController(r *corev1.ReplicationController) {
	s := r.Spec
	DefaultTemplate(s.GetTemplate())
	ofPods := s.GetTemplate().GetMetadata().GetLabels()
	if len(ofPods) == 0 {
		return
	}
	if len(s.GetSelector()) == 0 {
		s.Selector = maps.Clone(ofPods)
	}
	if r.Metadata != nil && len(r.GetMetadata().GetLabels()) == 0 {
		r.Metadata.Labels = maps.Clone(ofPods)
	}
}

func checkReplicationController(r *corev1.ReplicationController, c *rules.Checker) {
	p, s := field.NewPath("spec"), r.GetSpec()
	if len(s.GetSelector()) == 0 {
		c.Required(p.Child("selector"), "")
	}
	at, t := p.Child("template"), s.GetTemplate()
	if t == nil {
		c.Required(at, "")
		return
	}
	if !labels.SelectorFromSet(s.GetSelector()).Matches(labels.Set(t.GetMetadata().GetLabels())) {
		c.Invalid(at.Child("metadata", "labels"), t.GetMetadata().GetLabels(), "`selector` does not match template `labels`")
	}
	CheckTemplate(c, "ReplicationController", at, t)
}

func checkReplicationControllerStatus(s *corev1.ReplicationControllerStatus, c *rules.Checker) {
	p := field.NewPath("status")
	count := func(name string, n int32) {
		if n > s.GetReplicas() {
			c.Invalid(p.Child(name), n, "cannot be greater than status.replicas")
		}
	}
	count("fullyLabeledReplicas", s.GetFullyLabeledReplicas())
	count("readyReplicas", s.GetReadyReplicas())
	count("availableReplicas", s.GetAvailableReplicas())
	if s.GetAvailableReplicas() > s.GetReadyReplicas() {
		c.Invalid(p.Child("availableReplicas"), s.GetAvailableReplicas(), "cannot be greater than readyReplicas")
	}
}
