package printer

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Lines writes a map as sorted lines.
func Lines(m map[string]string, separator string) []string {
	if len(m) == 0 {
		return nil
	}
	all := make([]string, 0, len(m))
	for key, value := range m {
		all = append(all, key+separator+value)
	}
	slices.Sort(all)
	return all
}

// Title writes a field's name as words: podCIDR as Pod CIDR.
func Title(name string) string {
	var b strings.Builder
	for i, c := range name {
		upper := c >= 'A' && c <= 'Z'
		switch {
		case i == 0:
			b.WriteString(strings.ToUpper(string(c)))
			continue
		case upper && name[i-1] >= 'a' && name[i-1] <= 'z':
			b.WriteByte(' ')
		}
		b.WriteRune(c)
	}
	return b.String()
}

// Taint writes a taint as KEY=VALUE:EFFECT.
func Taint(t *corev1.Taint) string {
	text := t.GetKey()
	if t.GetValue() != "" {
		text += "=" + t.GetValue()
	}
	return text + ":" + t.GetEffect()
}

// Pairs writes a map as key=value, sorted; <none> when it is empty.
func Pairs(m map[string]string, separator string) string {
	if len(m) == 0 {
		return "<none>"
	}
	var out []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		out = append(out, key+"="+m[key])
	}
	return strings.Join(out, separator)
}

// OrNone returns a text, or <none> if it is empty.
func OrNone(text string) string {
	if text == "" {
		return "<none>"
	}
	return text
}

// IntOrString writes the number or the name that a value holds.
func IntOrString(v *metav1.IntOrString) string {
	if v.GetType() == 0 {
		return strconv.Itoa(int(v.GetIntVal()))
	}
	return v.GetStrVal()
}

// Bytes writes a number of bytes as people read it.
func Bytes(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
