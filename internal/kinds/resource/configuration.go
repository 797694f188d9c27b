package resource

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	resourcev1 "github.com/xebec-project/xebec/proto/xebec/resource/v1"
)

// maxData is how many bytes the parameters for a driver, and the data from one, may take.
const maxData = 10 << 10

// checkConfiguration checks the configuration for a driver, whose members are inline.
func checkConfiguration(c *rules.Checker, p *field.Path, config *resourcev1.DeviceConfiguration) {
	opaque := config.GetOpaque()
	if opaque == nil {
		c.Required(p.Child("opaque"), "")
		return
	}
	p = p.Child("opaque")
	checkDriver(c, p.Child("driver"), opaque.GetDriver())
	checkData(c, p.Child("parameters"), opaque.GetParameters())
}

// checkData checks that data is a JSON object, and not a large one.
func checkData(c *rules.Checker, p *field.Path, data *metav1.RawExtension) {
	var v any
	raw := data.GetRaw()
	if len(raw) > maxData {
		c.Add(field.TooLong(p, "", maxData))
		return
	}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &v); err != nil {
			c.Invalid(p, "<value omitted>", fmt.Sprintf("error parsing data as JSON: %v", err))
			return
		}
	}
	switch v.(type) {
	case nil:
		c.Required(p, "")
	case map[string]any:
	default:
		c.Invalid(p, "<value omitted>", "must be a valid JSON object")
	}
}

// warnOfSelectors returns a warning about the first of the selectors at p; none when there are no
// selectors.
func warnOfSelectors(p *field.Path, selectors []*resourcev1.DeviceSelector) []string {
	if len(selectors) == 0 {
		return nil
	}
	return []string{p.Index(0).Child("cel", "expression").String() + ": CEL expressions are not checked yet: mistakes in them are not found"}
}
