package apiserver

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds/flowcontrol"
	flowcontrolv1 "github.com/xebec-project/xebec/proto/xebec/flowcontrol/v1"
)

// makeFlowControl creates the flow schemas and priority levels that every cluster has, and restores
// what users changed. What they may change, the settings of the level exempt, stays.
func (s *Service) makeFlowControl(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var problems []error
	for _, level := range flowcontrol.MandatoryPriorityLevels() {
		problems = append(problems, keepOwn(ctx, s, level, func(stored *flowcontrolv1.PriorityLevelConfiguration) bool {
			if level.GetSpec().GetExempt() != nil && stored.GetSpec().GetExempt() != nil {
				level.Spec.Exempt = stored.GetSpec().GetExempt()
			}
			same := proto.Equal(stored.GetSpec(), level.GetSpec()) && flowcontrol.IsKept(stored.GetMetadata())
			stored.Spec = level.GetSpec()
			flowcontrol.MarkKept(stored.GetMetadata())
			return !same
		}))
	}
	for _, schema := range flowcontrol.MandatoryFlowSchemas() {
		problems = append(problems, keepOwn(ctx, s, schema, func(stored *flowcontrolv1.FlowSchema) bool {
			same := proto.Equal(stored.GetSpec(), schema.GetSpec()) && flowcontrol.IsKept(stored.GetMetadata())
			stored.Spec = schema.GetSpec()
			flowcontrol.MarkKept(stored.GetMetadata())
			return !same
		}))
	}
	return errors.Join(problems...)
}
