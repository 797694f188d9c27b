package core

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// PermanentNamespaces are created by the apiserver when they are missing. They cannot be deleted.
var PermanentNamespaces = []string{"default", "kube-system", "kube-public", "kube-node-lease"}

// Phases of a namespace, and the label that carries its name so that selectors can choose it.
const (
	NamespaceActive      = "Active"
	NamespaceTerminating = "Terminating"

	LabelNamespaceName = "kubernetes.io/metadata.name"
)

var (
	namespaceRules = rules.For[*corev1.Namespace]{
		Name:     rules.NameIsLabel,
		Defaults: defaultNamespace,
		Check:    checkNamespace,
		Create:   createNamespace,
		// Kubernetes' default too.
		PrepareStatus: func(new, _ *corev1.Namespace) {
			if new.GetStatus().GetPhase() == "" {
				if new.Status == nil {
					new.Status = &corev1.NamespaceStatus{}
				}
				new.Status.Phase = NamespaceActive
			}
		},
		CheckStatus: func(new, _ *corev1.Namespace, c *rules.Checker) { checkNamespaceStatus(new, c) },
		// As in Kubernetes, only a subresource could change the finalizers of the spec.
		Update: func(new, old *corev1.Namespace) { new.Spec = proto.CloneOf(old.GetSpec()) },
	}
	namespaceColumns = []scheme.Column{
		column.New("STATUS", func(n *corev1.Namespace) string {
			if n.GetMetadata().GetDeletionTimestamp() != nil {
				return NamespaceTerminating
			}
			return column.OrNone(n.GetStatus().GetPhase())
		}),
		column.AgeColumn,
	}
	namespaceFields = map[string][]protowire.Number{"status.phase": {3, 1}}
)

// createNamespace makes a namespace active and adds the finalizer that holds it until the collector
// has deleted its content. Kubernetes keeps that finalizer in spec.finalizers, which only a
// subresource of namespaces may change; here it is in the metadata like any other.
func createNamespace(n *corev1.Namespace) {
	n.Status = &corev1.NamespaceStatus{Phase: NamespaceActive}
	if m := n.GetMetadata(); m != nil && !slices.Contains(m.GetFinalizers(), object.FinalizerKubernetes) {
		m.Finalizers = append(m.GetFinalizers(), object.FinalizerKubernetes)
	}
}

func defaultNamespace(n *corev1.Namespace) {
	m := n.GetMetadata()
	if m.GetName() == "" {
		return
	}
	if m.Labels == nil {
		m.Labels = map[string]string{}
	}
	m.Labels[LabelNamespaceName] = m.GetName()
}

func checkNamespace(n *corev1.Namespace, c *rules.Checker) {
	for i, f := range n.GetSpec().GetFinalizers() {
		p := field.NewPath("spec", "finalizers").Index(i)
		c.Each(p, f, validation.IsQualifiedName(f))
		if f != object.FinalizerKubernetes && len(validation.IsDomainPrefixedPath(p, f)) > 0 {
			c.Invalid(p, f, fmt.Sprintf("must be %q or be fully qualified", object.FinalizerKubernetes))
		}
	}
}

// checkNamespaceStatus holds the phase to what the metadata says, as Kubernetes does.
func checkNamespaceStatus(n *corev1.Namespace, c *rules.Checker) {
	p, phase := field.NewPath("status", "Phase"), n.GetStatus().GetPhase()
	terminating := n.GetMetadata().GetDeletionTimestamp() != nil
	switch {
	case terminating && phase != NamespaceTerminating:
		c.Invalid(p, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")
	case !terminating && phase != NamespaceActive:
		c.Invalid(p, phase, "may only be 'Active' if `deletionTimestamp` is empty")
	}
}
