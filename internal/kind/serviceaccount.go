package kind

import (
	"strconv"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

var (
	serviceAccountRules   = rulesOf[*corev1.ServiceAccount]{name: nameIsSubdomain}
	serviceAccountColumns = []Column{
		column("SECRETS", func(a *corev1.ServiceAccount) string { return strconv.Itoa(len(a.GetSecrets())) }),
		AgeColumn,
	}
)
