package kind_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kind"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// badCase is an object that is fine until edit breaks it, and the beginnings of the errors that are
// to come of it.
type badCase[T kind.Object] struct {
	name string
	edit func(T)
	want []string
}

// testValidate defaults and validates the object made by base: as it is, when it has to pass, and
// once per case.
func testValidate[T kind.Object](t *testing.T, base func() T, tests []badCase[T]) {
	t.Helper()
	fine := base()
	k := kind.Of(fine)
	k.Default(fine)
	if errs := k.Validate(fine); len(errs) > 0 {
		t.Fatalf("the base is invalid: %v", errs.ToAggregate())
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := base()
			tt.edit(o)
			k.Default(o)
			expect(t, k.Validate(o), tt.want)
		})
	}
}

// updateCase is an edit of a stored object.
type updateCase[T kind.Object] struct {
	name string
	edit func(T)
	want []string
}

func testUpdate[T kind.Object](t *testing.T, base func() T, tests []updateCase[T]) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			old := base()
			k := kind.Of(old)
			k.Default(old)
			updated := proto.Clone(old).(T)
			tt.edit(updated)
			k.Default(updated)
			k.PrepareUpdate(updated, old)
			expect(t, k.ValidateUpdate(updated, old), tt.want)
		})
	}
}

// expect checks that there are exactly the wanted errors, each given by how it begins, in any
// order.
func expect(t *testing.T, errs field.ErrorList, want []string) {
	t.Helper()
	var got []string
	for _, e := range errs {
		got = append(got, e.Error())
	}
	want = slices.Sorted(slices.Values(want))
	slices.Sort(got)
	matches := len(got) == len(want)
	for i := range min(len(got), len(want)) {
		matches = matches && strings.HasPrefix(got[i], want[i])
	}
	if !matches {
		t.Errorf("errors\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func meta(name string) *metav1.ObjectMeta {
	return &metav1.ObjectMeta{Name: name, Namespace: "default"}
}

// cells are an object's row, by heading.
func cells(o kind.Object, now time.Time) map[string]string {
	row := map[string]string{}
	for _, c := range kind.Of(o).Columns {
		row[c.Name] = c.Value(o, now)
	}
	return row
}

func expectCells(t *testing.T, o kind.Object, now time.Time, want map[string]string) {
	t.Helper()
	got := cells(o, now)
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %q, want %q", name, got[name], value)
		}
	}
}

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }

func amounts(pairs ...string) map[string]*metav1.Quantity {
	m := map[string]*metav1.Quantity{}
	for pair := range slices.Chunk(pairs, 2) {
		m[pair[0]] = &metav1.Quantity{String_: pair[1]}
	}
	return m
}
