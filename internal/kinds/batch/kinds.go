package batch

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/xebec-project/xebec/internal/scheme"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
)

// Kinds are the kinds of the group batch, by name.
var Kinds = []*scheme.Kind{
	{
		Group: "batch", Version: "v1", Name: "CronJob", Plural: "cronjobs", Singular: "cronjob", ShortNames: []string{"cj"},
		Namespaced: true, Subresources: []scheme.Subresource{scheme.StatusSubresource}, Categories: scheme.All,
		New:     func() scheme.Object { return new(batchv1.CronJob) },
		Columns: cronJobColumns, Rules: cronJobRules,
	},
	{
		Group: "batch", Version: "v1", Name: "Job", Plural: "jobs", Singular: "job",
		Namespaced: true, Subresources: []scheme.Subresource{scheme.StatusSubresource}, Categories: scheme.All,
		New:     func() scheme.Object { return new(batchv1.Job) },
		Columns: jobColumns, Rules: jobRules,
		Fields: map[string][]protowire.Number{"status.successful": {3, 5}},
	},
}
