package history

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/apps"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func template(image string) *corev1.PodTemplateSpec {
	t := proto.CloneOf(kindtest.Deployment().GetSpec().GetTemplate())
	t.Spec.Containers[0].Image = image
	return t
}

func revision(name string, number int64) *appsv1.ControllerRevision {
	return &appsv1.ControllerRevision{Metadata: &metav1.ObjectMeta{Name: name, CreationTimestamp: timestamppb.New(epoch)}, Revision: number}
}

func names(revisions []*appsv1.ControllerRevision) string {
	var out []string
	for _, r := range revisions {
		out = append(out, r.GetMetadata().GetName())
	}
	return strings.Join(out, " ")
}

func TestDataReplacesTheTemplate(t *testing.T) {
	data, err := Data(template("web:1"))
	if err != nil {
		t.Fatal(err)
	}
	var patch struct {
		Spec struct {
			Template map[string]any
		}
	}
	if err := json.Unmarshal(data, &patch); err != nil || patch.Spec.Template["$patch"] != "replace" {
		t.Errorf("got %s, %v", data, err)
	}
	back, err := Template(&appsv1.ControllerRevision{Data: &metav1.RawExtension{Raw: data}})
	if err != nil || !proto.Equal(back, template("web:1")) {
		t.Errorf("got %v, %v", back, err)
	}
	for _, bad := range []string{"", "[]", "{}", `{"spec":{"template":{"nothing":1}}}`} {
		if _, err := Template(&appsv1.ControllerRevision{Data: &metav1.RawExtension{Raw: []byte(bad)}}); err == nil {
			t.Errorf("a template was read from %q", bad)
		}
	}
}

func TestHash(t *testing.T) {
	seen := map[string]bool{}
	for _, data := range []string{"a", "b"} {
		for collisions := range int32(3) {
			seen[Hash([]byte(data), collisions)] = true
		}
	}
	if len(seen) != 6 {
		t.Errorf("six inputs have the hashes %v", slices.Sorted(maps.Keys(seen)))
	}
	for _, owner := range []string{"web", strings.Repeat("a", 253), strings.Repeat("a", 222) + ".b", strings.Repeat("a", 222) + "-b"} {
		if name := Name(owner, Hash(nil, 0)); len(validation.IsDNS1123Subdomain(name)) > 0 {
			t.Errorf("%s is no name", name)
		}
	}
}

func TestFindEqualIgnoresDefaults(t *testing.T) {
	data := func(t1 *corev1.PodTemplateSpec) *metav1.RawExtension {
		raw, err := Data(t1)
		if err != nil {
			t.Fatal(err)
		}
		return &metav1.RawExtension{Raw: raw}
	}
	revisions := []*appsv1.ControllerRevision{revision("newer", 3), revision("other", 2), revision("older", 1), revision("unreadable", 4)}
	revisions[0].Data, revisions[1].Data, revisions[2].Data = data(withDefaults(template("web:1"))), data(template("web:2")), data(template("web:1"))
	revisions[3].Data = &metav1.RawExtension{Raw: []byte(`{}`)}
	if got := names(FindEqual(revisions, data(template("web:1")).GetRaw())); got != "older newer" {
		t.Errorf("got %s", got)
	}
}

func TestOrderAndSurplus(t *testing.T) {
	younger := revision("a", 1)
	younger.Metadata.CreationTimestamp = timestamppb.New(epoch.Add(time.Second))
	all := []*appsv1.ControllerRevision{revision("five", 5), younger, revision("c", 1), revision("b", 1)}
	if got := names(Sorted(all)); got != "b c a five" {
		t.Errorf("sorted %s", got)
	}
	if n, first := Next(all), Next(nil); n != 6 || first != 1 {
		t.Errorf("the next numbers are %d and %d", n, first)
	}
	for _, tt := range []struct {
		limit int
		live  string
		want  string
	}{
		{4, "", ""},
		{2, "", "b c"},
		{2, "b", "c a"},
		{0, "c five", "b a"},
		{9, "", ""},
	} {
		live := func(r *appsv1.ControllerRevision) bool {
			return slices.Contains(strings.Fields(tt.live), r.GetMetadata().GetName())
		}
		if got := names(Surplus(all, tt.limit, live)); got != tt.want {
			t.Errorf("limit %d, live %q: got %q, want %q", tt.limit, tt.live, got, tt.want)
		}
	}
}

// cluster has a ReplicaSet as the owner of revisions; any kind with a template will do.
type cluster struct {
	*History[*appsv1.ReplicaSet]
	t      *testing.T
	server *clienttest.Server
	owner  *appsv1.ReplicaSet
}

func newCluster(t *testing.T) *cluster {
	server := clienttest.NewServer()
	api := client.New(clienttest.Serve(t, server))
	sets := client.NewInformer(api, client.InformerOptions[*appsv1.ReplicaSet]{})
	revisions := client.NewInformer(api, client.InformerOptions[*appsv1.ControllerRevision]{
		Indexers: controller.ByController[*appsv1.ControllerRevision](),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- sets.Run(ctx) }()
	go func() { done <- revisions.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		<-done
	})
	owner := kindtest.ReplicaSet()
	owner.Metadata.Annotations = map[string]string{"kubernetes.io/change-cause": "first"}
	h := New(Config[*appsv1.ReplicaSet]{
		Client: api, Owners: sets, Revisions: revisions, HashLabel: apps.LabelRevisionHash,
		Selector: func(rs *appsv1.ReplicaSet) *metav1.LabelSelector { return rs.GetSpec().GetSelector() },
		Template: func(rs *appsv1.ReplicaSet) *corev1.PodTemplateSpec { return rs.GetSpec().GetTemplate() },
	})
	synctest.Wait()
	return &cluster{h, t, server, clienttest.Seed(server, owner)[0]}
}

// record records the template with an image.
func (c *cluster) record(image string, collisions int32) (*appsv1.ControllerRevision, int32) {
	c.t.Helper()
	synctest.Wait()
	revisions, wait, err := c.Claim(context.Background(), c.owner)
	if wait > 0 || err != nil {
		c.t.Fatalf("claim: wait %v, %v", wait, err)
	}
	return c.recordAmong(image, revisions, collisions)
}

// recordAmong is record for a controller that knows these revisions.
func (c *cluster) recordAmong(image string, revisions []*appsv1.ControllerRevision, collisions int32) (*appsv1.ControllerRevision, int32) {
	c.t.Helper()
	c.owner = client.Clone(c.owner)
	c.owner.Spec.Template = template(image)
	r, collisions, err := c.Record(context.Background(), c.owner, revisions, collisions)
	if err != nil {
		c.t.Fatal(err)
	}
	return r, collisions
}

func TestRecordNumbersRevisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		first, _ := c.record("web:1", 0)
		m := first.GetMetadata()
		if first.GetRevision() != 1 || !kinds.IsControlledBy(first, c.owner) || m.GetLabels()["app"] != "web" ||
			m.GetAnnotations()["kubernetes.io/change-cause"] != "first" || m.GetName() != "web-"+c.HashOf(first) {
			t.Errorf("got %v", first)
		}
		if again, _ := c.record("web:1", 0); again.GetMetadata().GetResourceVersion() != m.GetResourceVersion() {
			t.Errorf("the revision was written again: %v", again)
		}
		second, _ := c.record("web:2", 0)
		back, _ := c.record("web:1", 0)
		if second.GetRevision() != 2 || back.GetRevision() != 3 || back.GetMetadata().GetName() != m.GetName() {
			t.Errorf("got %v and %v", second, back)
		}
		synctest.Wait()
		all, _, _ := c.Claim(context.Background(), c.owner)
		if len(all) != 2 {
			t.Errorf("there are %d revisions, want 2", len(all))
		}
		if err := c.Trim(context.Background(), c.owner, []*appsv1.ControllerRevision{second}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if all, _, _ := c.Claim(context.Background(), c.owner); names(all) != m.GetName() {
			t.Errorf("left over are %s", names(all))
		}
	})
}

func TestRecordFindsWhatTheInformerLacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		first, _ := c.record("web:1", 0)
		again, collisions := c.recordAmong("web:1", nil, 0)
		if collisions != 0 || again.GetMetadata().GetUid() != first.GetMetadata().GetUid() {
			t.Errorf("got %v after %d collisions", again, collisions)
		}
	})
}

func TestRecordCountsCollisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		data, err := Data(template("web:1"))
		if err != nil {
			t.Fatal(err)
		}
		for n := range int32(2) {
			taken := revision(Name("web", Hash(data, n)), 7)
			taken.Metadata.Namespace, taken.Data = "default", &metav1.RawExtension{Raw: []byte("{}")}
			clienttest.Seed(c.server, taken)
		}
		r, collisions := c.record("web:1", 0)
		if collisions != 2 || r.GetMetadata().GetName() != Name("web", Hash(data, 2)) || r.GetRevision() != 1 {
			t.Errorf("got %v after %d collisions", r, collisions)
		}
	})
}

func TestClaimAdoptsRevisionsOfAnOrphaningOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		data, err := Data(template("web:1"))
		if err != nil {
			t.Fatal(err)
		}
		left := revision("web-left", 4)
		left.Metadata.Namespace, left.Metadata.Labels, left.Data = "default", map[string]string{"app": "web"}, &metav1.RawExtension{Raw: data}
		clienttest.Seed(c.server, left)
		synctest.Wait()
		if _, wait, err := c.Claim(context.Background(), c.owner); wait == 0 || err != nil {
			t.Fatalf("wait %v, %v", wait, err)
		}
		r, _ := c.record("web:1", 0)
		if r.GetMetadata().GetName() != "web-left" || r.GetRevision() != 4 || !kinds.IsControlledBy(r, c.owner) || c.HashOf(r) != "web-left" {
			t.Errorf("got %v", r)
		}
	})
}
