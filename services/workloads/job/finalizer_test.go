package job

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/xebec-project/xebec/internal/kinds/batch"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// TestAbandonedPodsHaveNotChanged looks for the tests in the patch of an orphan: a Job that has
// adopted it meanwhile has changed its resource version.
func TestAbandonedPodsHaveNotChanged(t *testing.T) {
	patch := abandonPatch(&corev1.Pod{Metadata: &metav1.ObjectMeta{
		Uid: "u", ResourceVersion: "5", Finalizers: []string{"example.com/other", batch.FinalizerTracking},
	}})
	type operation struct{ Op, Path, Value string }
	var got []operation
	if err := json.Unmarshal(patch, &got); err != nil {
		t.Fatal(err)
	}
	want := []operation{
		{"test", "/metadata/resourceVersion", "5"}, {"test", "/metadata/uid", "u"},
		{"test", "/metadata/finalizers/1", batch.FinalizerTracking}, {"remove", "/metadata/finalizers/1", ""},
	}
	if !slices.Equal(got, want) {
		t.Errorf("the patch is %v, want %v", got, want)
	}
}
