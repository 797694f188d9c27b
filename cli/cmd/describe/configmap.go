package describe

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/xebec-project/xebec/cli/terminal"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func (r *report) configMap(c *corev1.ConfigMap) {
	r.metadata(c)
	r.labels(c)
	r.ends(c)
	r.line("")
	r.line("Data")
	r.line("====")
	for _, key := range slices.Sorted(maps.Keys(c.GetData())) {
		r.line(key + ":")
		r.line("----")
		_ = r.w.Flush()
		fmt.Fprintf(r.w, "%s\n\n", terminal.Escape(strings.TrimRight(strings.ReplaceAll(c.GetData()[key], "\t", "    "), "\n")))
	}
	for _, key := range slices.Sorted(maps.Keys(c.GetBinaryData())) {
		r.field(key, fmt.Sprintf("%d bytes", len(c.GetBinaryData()[key])))
	}
}

func (r *report) secret(c *corev1.Secret) {
	r.metadata(c)
	r.labels(c)
	r.ends(c)
	r.field("Type", c.GetType())
	r.group("Data", func() {
		for _, key := range slices.Sorted(maps.Keys(c.GetData())) {
			r.field(key, fmt.Sprintf("%d bytes", len(c.GetData()[key])))
		}
	})
}
