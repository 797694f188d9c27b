package core

import corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"

// Tolerates reports whether a toleration covers a taint, by Kubernetes' rules: an empty effect
// covers every effect, an empty key with operator Exists every taint.
func Tolerates(t *corev1.Toleration, taint *corev1.Taint) bool {
	if t.GetEffect() != "" && t.GetEffect() != taint.GetEffect() {
		return false
	}
	if t.GetKey() != "" && t.GetKey() != taint.GetKey() {
		return false
	}
	switch t.GetOperator() {
	case "Exists":
		return true
	case "", "Equal":
		return t.GetKey() != "" && t.GetValue() == taint.GetValue()
	}
	return false
}
