package diagnose

import (
	"context"
	"strings"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Rollout is an object whose pods move from one template to the next. Each kind has a file with its
// implementation, a case in RolloutOf and a line in RolloutKinds.
type Rollout interface {
	// State says how far the rollout is, in kubectl's words, which scripts look for. An error says
	// that it will not go on.
	State() (text string, done bool, err error)
	// Waits is what the rollout waits for, empty when nothing is known.
	Waits(ctx context.Context, cl *client.Client) (string, error)
	// Revisions are the templates that the object has and had, oldest first.
	Revisions(ctx context.Context, cl *client.Client) ([]Revision, error)
	// Template is the template of the object's pods, which may be changed in place. SetTemplate
	// replaces it by that of a revision.
	Template() *corev1.PodTemplateSpec
	SetTemplate(t *corev1.PodTemplateSpec)
}

// Pausable is a Rollout that can be paused.
type Pausable interface {
	Rollout
	// Paused points to the field that pauses the rollout.
	Paused() *bool
}

// Revision is a template that an object has or had.
type Revision struct {
	// Number orders the revisions.
	Number int64
	// Holder is the object that holds the revision, of which users see the age and the cause.
	Holder scheme.Object
	// Template is the template as the holder has it.
	Template *corev1.PodTemplateSpec
	// Replicas is how many pods of the revision there are, or should be.
	Replicas int32
	// Current is set in the revision that the object is at.
	Current bool
}

// RolloutOf returns the rollout of an object, false when its kind has none.
func RolloutOf(obj scheme.Object) (Rollout, bool) {
	switch o := obj.(type) {
	case *appsv1.Deployment:
		return deployment{o}, true
	case *appsv1.DaemonSet:
		return daemonSet{o}, true
	case *appsv1.StatefulSet:
		return statefulSet{o}, true
	}
	return nil, false
}

// RolloutKinds are the kinds that have rollouts. A name without a kind is of the first.
func RolloutKinds() []*scheme.Kind {
	return []*scheme.Kind{kinds.Of(&appsv1.Deployment{}), kinds.Of(&appsv1.DaemonSet{}), kinds.Of(&appsv1.StatefulSet{})}
}

// RolloutNames are the names of RolloutKinds as the end of a sentence: "a deployment, a daemonset
// or a statefulset".
func RolloutNames() string {
	var names []string
	for _, k := range RolloutKinds() {
		names = append(names, "a "+k.Singular)
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}
