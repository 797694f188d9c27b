// Package kindtest checks the rules of kinds in tests.
package kindtest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Bad is an object that is fine until edit breaks it, and the beginnings of the errors that are
// to come of it.
type Bad[T scheme.Object] struct {
	Name string
	Edit func(T)
	Want []string
}

// Validate defaults and validates the object made by base: as it is, when it has to pass, and
// once per case.
func Validate[T scheme.Object](t *testing.T, base func() T, tests []Bad[T]) {
	t.Helper()
	fine := base()
	k := kinds.Of(fine)
	k.Default(fine)
	if errs := k.Validate(fine); len(errs) > 0 {
		t.Fatalf("the base is invalid: %v", errs.ToAggregate())
	}
	for _, tt := range tests {
		t.Run(tt.Name, func(t *testing.T) {
			o := base()
			tt.Edit(o)
			k.Default(o)
			Expect(t, k.Validate(o), tt.Want)
		})
	}
}

// Edit is an edit of a stored object.
type Edit[T scheme.Object] struct {
	Name string
	Edit func(T)
	Want []string
}

// Part edits the defaulted object made by base once per case, by a write to a subresource that is a
// part of the object, and checks it.
func Part[T scheme.Object](t *testing.T, subresource string, base func() T, tests []Edit[T]) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.Name, func(t *testing.T) {
			old := base()
			k := kinds.Of(old)
			k.Default(old)
			updated := proto.Clone(old).(T)
			tt.Edit(updated)
			part := k.Part(subresource)
			k.PreparePart(part, updated, old)
			if errs := k.Validate(updated); len(errs) > 0 && len(tt.Want) == 0 {
				t.Error(errs.ToAggregate())
			}
			Expect(t, part.Validate(updated, old), tt.Want)
		})
	}
}

// Update edits the defaulted object made by base once per case, and checks the update.
func Update[T scheme.Object](t *testing.T, base func() T, tests []Edit[T]) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.Name, func(t *testing.T) {
			old := base()
			k := kinds.Of(old)
			k.Default(old)
			updated := proto.Clone(old).(T)
			tt.Edit(updated)
			k.Default(updated)
			k.PrepareUpdate(updated, old)
			Expect(t, k.ValidateUpdate(updated, old), tt.Want)
		})
	}
}

// Expect checks that there are exactly the wanted errors, each given by how it begins, in any
// order.
func Expect(t *testing.T, errs field.ErrorList, want []string) {
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

// Meta returns the metadata of an object in the namespace default.
func Meta(name string) *metav1.ObjectMeta {
	return &metav1.ObjectMeta{Name: name, Namespace: "default"}
}

// Cells are an object's row, by heading.
func Cells(o scheme.Object, now time.Time) map[string]string {
	row := map[string]string{}
	for _, c := range kinds.Of(o).Columns {
		row[c.Name] = c.Value(o, now)
	}
	return row
}

// ExpectCells compares some of an object's cells, by heading.
func ExpectCells(t *testing.T, o scheme.Object, now time.Time, want map[string]string) {
	t.Helper()
	got := Cells(o, now)
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %q, want %q", name, got[name], value)
		}
	}
}

// Now is the present time of tests.
var Now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// Ago returns the time d before Now.
func Ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(Now.Add(-d)) }

// Amounts returns quantities by resource, from pairs of a name and an amount.
func Amounts(pairs ...string) map[string]*metav1.Quantity {
	m := map[string]*metav1.Quantity{}
	for pair := range slices.Chunk(pairs, 2) {
		m[pair[0]] = &metav1.Quantity{String_: pair[1]}
	}
	return m
}
