package kinds_test

import (
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/kinds"
)

// TestColumnPaths compares the fields that columns state with the fields of the message, by their
// names in JSON.
func TestColumnPaths(t *testing.T) {
	stated := 0
	for _, k := range kinds.NewScheme().Kinds() {
		for _, c := range k.Columns {
			if c.Path == "" {
				continue
			}
			stated++
			d := k.New().ProtoReflect().Descriptor()
			for name := range strings.SplitSeq(strings.TrimPrefix(c.Path, "."), ".") {
				f := d.Fields().ByJSONName(name)
				if f == nil {
					t.Fatalf("%s %s: %s has no field %s", k, c.Name, d.FullName(), name)
				}
				d = f.Message()
			}
		}
	}
	if stated == 0 {
		t.Error("no column states its field")
	}
}
