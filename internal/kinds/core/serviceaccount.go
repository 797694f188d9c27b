package core

import (
	"strconv"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

var (
	serviceAccountRules   = rules.For[*corev1.ServiceAccount]{Name: rules.NameIsSubdomain}
	serviceAccountColumns = []scheme.Column{
		column.New("SECRETS", func(a *corev1.ServiceAccount) string { return strconv.Itoa(len(a.GetSecrets())) }),
		column.AgeColumn,
	}
)
