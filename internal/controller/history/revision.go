package history

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/schema"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// longestPrefix is how much of an owner's name is in the names of its revisions.
const longestPrefix = 223

// directive and replace are the member of a strategic merge patch by which an object is replaced
// instead of merged.
const directive, replace = "$patch", "replace"

// Data returns what a revision holds of an owner with this pod template: a strategic merge patch
// that replaces the template.
func Data(template *corev1.PodTemplateSpec) ([]byte, error) {
	v, err := codec.Value(template)
	if err != nil {
		return nil, fmt.Errorf("encode the pod template: %w", err)
	}
	t, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("encode the pod template: got a %T", v)
	}
	t[directive] = replace
	return json.Marshal(map[string]any{"spec": map[string]any{"template": t}})
}

// Template returns the pod template that a revision holds.
func Template(r *appsv1.ControllerRevision) (*corev1.PodTemplateSpec, error) {
	t, err := templateOf(r.GetData().GetRaw())
	if err != nil {
		return nil, fmt.Errorf("read the template of revision %s: %w", r.GetMetadata().GetName(), err)
	}
	return t, nil
}

func templateOf(data []byte) (*corev1.PodTemplateSpec, error) {
	var held struct {
		Spec struct {
			Template map[string]json.RawMessage `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(data, &held); err != nil {
		return nil, err
	}
	if held.Spec.Template == nil {
		return nil, fmt.Errorf("data has no spec.template")
	}
	delete(held.Spec.Template, directive)
	raw, err := json.Marshal(held.Spec.Template)
	if err != nil {
		return nil, err
	}
	t := &corev1.PodTemplateSpec{}
	if err := codec.UnmarshalInto(raw, t); err != nil {
		return nil, err
	}
	return t, nil
}

// Hash returns a short hash of a revision's data and of how often its name was taken already. It
// has no vowels, so that no words come out.
func Hash(data []byte, collisions int32) string {
	h := fnv.New32()
	h.Write(data)
	h.Write([]byte(strconv.Itoa(int(collisions))))
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

// Name returns the name of an owner's revision with this hash.
func Name(owner, hash string) string {
	// A cut behind a dot would leave a label that begins with the hyphen.
	return strings.TrimRight(owner[:min(len(owner), longestPrefix)], "-.") + "-" + hash
}

// same reports whether two revisions hold the same template. A default that is newer than one of
// them makes no difference: no rollout may start because the defaults grew.
func same(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, err := templateOf(a)
	if err != nil {
		return false
	}
	y, err := templateOf(b)
	return err == nil && proto.Equal(withDefaults(x), withDefaults(y))
}

func withDefaults(t *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	schema.Default(t)
	core.DefaultTemplate(t)
	return t
}

// FindEqual returns the revisions that hold this data, by number.
func FindEqual(revisions []*appsv1.ControllerRevision, data []byte) []*appsv1.ControllerRevision {
	var equal []*appsv1.ControllerRevision
	for _, r := range Sorted(revisions) {
		if same(r.GetData().GetRaw(), data) {
			equal = append(equal, r)
		}
	}
	return equal
}

// Sorted returns the revisions by number, those of one number by age and then by name.
func Sorted(revisions []*appsv1.ControllerRevision) []*appsv1.ControllerRevision {
	return slices.SortedStableFunc(slices.Values(revisions), func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(
			cmp.Compare(a.GetRevision(), b.GetRevision()),
			a.GetMetadata().GetCreationTimestamp().AsTime().Compare(b.GetMetadata().GetCreationTimestamp().AsTime()),
			cmp.Compare(a.GetMetadata().GetName(), b.GetMetadata().GetName()),
		)
	})
}

// Next returns the number after those of the revisions, 1 when there are none.
func Next(revisions []*appsv1.ControllerRevision) int64 {
	var newest int64
	for _, r := range revisions {
		newest = max(newest, r.GetRevision())
	}
	return newest + 1
}

// Surplus returns the oldest of the old revisions, as many as there are beyond limit. Live ones,
// which pods still have, count, but are not returned.
func Surplus(old []*appsv1.ControllerRevision, limit int, live func(*appsv1.ControllerRevision) bool) []*appsv1.ControllerRevision {
	beyond := max(len(old)-limit, 0)
	surplus := slices.DeleteFunc(Sorted(old), live)
	return surplus[:min(beyond, len(surplus))]
}

// without returns the revisions but for one.
func without(revisions []*appsv1.ControllerRevision, one *appsv1.ControllerRevision) []*appsv1.ControllerRevision {
	return slices.DeleteFunc(slices.Clone(revisions), func(r *appsv1.ControllerRevision) bool { return r == one })
}
