package object_test

import (
	"math"
	"testing"

	"github.com/xebec-project/xebec/internal/object"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestScaledValue(t *testing.T) {
	tests := []struct {
		v     *metav1.IntOrString
		total int32
		up    bool
		want  int32
	}{
		{nil, 10, true, 0}, {object.Count(3), 10, true, 3}, {object.Text("25%"), 10, true, 3}, {object.Text("25%"), 10, false, 2},
		{object.Text("100%"), 7, false, 7}, {object.Text("0%"), 7, true, 0}, {object.Text("150%"), 1 << 30, false, 1610612736},
		{object.Text("999999999%"), 1 << 30, true, math.MaxInt32},
	}
	for _, tt := range tests {
		if got, err := object.ScaledValue(tt.v, tt.total, tt.up); err != nil || got != tt.want {
			t.Errorf("ScaledValue(%v, %d, %v) = %d, %v; want %d", tt.v, tt.total, tt.up, got, err, tt.want)
		}
	}
	if _, err := object.ScaledValue(object.Text("x%"), 1, true); err == nil {
		t.Error("x% is a percentage")
	}
}
