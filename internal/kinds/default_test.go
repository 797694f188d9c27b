package kinds_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
)

// TestDefaultIsIdempotent also makes sure that no rule breaks on an empty object of any kind.
func TestDefaultIsIdempotent(t *testing.T) {
	for _, k := range kinds.All() {
		o := k.New()
		k.PrepareCreate(o)
		k.Default(o)
		once := proto.Clone(o)
		k.Default(o)
		if !proto.Equal(o, once) {
			t.Errorf("%s: defaulting twice gives %v, once %v", k, o, once)
		}
		k.Warnings(o)
		if errs := k.Validate(o); len(errs) == 0 {
			t.Errorf("%s: an empty object is valid", k)
		}
		k.Validate(k.New())
		k.ValidateUpdate(k.New(), o)
		k.ValidateUpdate(o, k.New())
		k.ValidateStatusUpdate(o, k.New())
		k.PrepareUpdate(k.New(), o)
		k.PrepareUpdate(o, k.New())
		k.PrepareStatusUpdate(k.New(), o)
		if k.GracePeriod != nil {
			k.GracePeriod(k.New())
		}
		kindtest.Cells(k.New(), kindtest.Now)
		kindtest.Cells(o, kindtest.Now)
	}
}
