package core

import (
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

var (
	podTemplateRules = rules.For[*corev1.PodTemplate]{
		Name:     rules.NameIsSubdomain,
		Defaults: func(t *corev1.PodTemplate) { DefaultTemplate(t.GetTemplate()) },
		Check: func(t *corev1.PodTemplate, c *rules.Checker) {
			CheckPodTemplate(c, field.NewPath("template"), t.GetTemplate())
		},
		Warn: func(t *corev1.PodTemplate) []string {
			return WarnPod(field.NewPath("template"), t.GetTemplate().GetMetadata(), t.GetTemplate().GetSpec())
		},
	}
	podTemplateColumns = []scheme.Column{
		column.New("CONTAINERS", func(t *corev1.PodTemplate) string { return TemplateContainers(t.GetTemplate()) }),
		column.New("IMAGES", func(t *corev1.PodTemplate) string { return TemplateImages(t.GetTemplate()) }),
		column.New("POD LABELS", func(t *corev1.PodTemplate) string {
			return column.FormatLabels(t.GetTemplate().GetMetadata().GetLabels())
		}),
	}
)
