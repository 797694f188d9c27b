package object_test

import (
	"testing"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/object"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestLabelSelector(t *testing.T) {
	tests := []struct {
		name     string
		selector *metav1.LabelSelector
		text     string
		matches  bool
	}{
		{"nil", nil, "<none>", false},
		{"empty", &metav1.LabelSelector{}, "<none>", true},
		{"labels", &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "front", "app": "web"}}, "app=web,tier=front", true},
		{"other", &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}, "app=db", false},
		{"expressions", &metav1.LabelSelector{MatchExpressions: []*metav1.LabelSelectorRequirement{
			{Key: "app", Operator: "In", Values: []string{"web", "db"}}, {Key: "canary", Operator: "DoesNotExist"},
			{Key: "tier", Operator: "NotIn", Values: []string{"back"}}, {Key: "zone", Operator: "DoesNotExist"},
		}}, "app in (db,web),!canary,tier notin (back),!zone", true},
		{"exists", &metav1.LabelSelector{MatchExpressions: []*metav1.LabelSelectorRequirement{{Key: "app", Operator: "Exists"}}}, "app", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := object.LabelSelector(tt.selector)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Matches(labelSet{"app": "web", "tier": "front"}); got != tt.matches {
				t.Errorf("matches = %v", got)
			}
			if got := column.FormatLabelSelector(tt.selector); got != tt.text {
				t.Errorf("text %q, want %q", got, tt.text)
			}
		})
	}
	if _, err := object.LabelSelector(&metav1.LabelSelector{MatchExpressions: []*metav1.LabelSelectorRequirement{{Key: "a", Operator: "Gt", Values: []string{"1"}}}}); err == nil {
		t.Error("Gt is taken for a label selector operator")
	}
}

type labelSet map[string]string

func (s labelSet) Has(k string) bool { _, ok := s[k]; return ok }

func (s labelSet) Get(k string) string { return s[k] }

func (s labelSet) Lookup(k string) (string, bool) { v, ok := s[k]; return v, ok }
