package apps_test

import (
	"testing"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestControllerRevision(t *testing.T) {
	kindtest.Validate(t, kindtest.ControllerRevision, []kindtest.Bad[*appsv1.ControllerRevision]{
		{Name: "negative", Edit: func(r *appsv1.ControllerRevision) { r.Revision = -1 },
			Want: []string{"revision: Invalid value: -1: must be greater than or equal to 0"}},
	})
	for raw, want := range map[string][]string{
		`{}`:     nil,
		``:       {"data: Required value: data is mandatory"},
		`null`:   {"data: Required value: data is mandatory"},
		`[1]`:    {"data: Required value: data must be a valid JSON object"},
		`"text"`: {"data: Required value: data must be a valid JSON object"},
		`{"a":`:  {`data: Invalid value: "<value omitted>": error parsing data: `},
	} {
		r := kindtest.ControllerRevision()
		r.Data.Raw = []byte(raw)
		kindtest.Expect(t, kinds.Of(r).ValidateNew(r), want)
	}
	kindtest.Update(t, kindtest.ControllerRevision, []kindtest.Edit[*appsv1.ControllerRevision]{
		{Name: "revision", Edit: func(r *appsv1.ControllerRevision) { r.Revision = 2 }, Want: nil},
		{Name: "data", Edit: func(r *appsv1.ControllerRevision) { r.Data.Raw = []byte(`{}`) }, Want: []string{"data: Invalid value"}},
		{Name: "no data", Edit: func(r *appsv1.ControllerRevision) { r.Data = nil }, Want: []string{"data: Invalid value"}},
	})
}

func TestControllerRevisionColumns(t *testing.T) {
	r := kindtest.ControllerRevision()
	kindtest.ExpectCells(t, r, kindtest.Now, map[string]string{"CONTROLLER": "<none>", "REVISION": "1"})
	d := kindtest.Deployment()
	d.Metadata.Uid = "u"
	r.Metadata.OwnerReferences = []*metav1.OwnerReference{kinds.NewOwnerRef(kindtest.ConfigMap()), kinds.NewControllerRef(d)}
	kindtest.ExpectCells(t, r, kindtest.Now, map[string]string{"CONTROLLER": "deployment.apps/web"})
}
