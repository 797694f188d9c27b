package apiserver

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/scheduling"
	"github.com/xebec-project/xebec/internal/metrics"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	schedulingv1 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// priorityInterval is how often it is looked whether the classes that every cluster has are as they
// should be.
const priorityInterval = time.Minute

// keepPriorityClasses makes the priority classes that every cluster has, and restores their fields,
// until ctx ends. Every instance does it, for all want the same.
func (s *Service) keepPriorityClasses(ctx context.Context) {
	pauses := backoff.Backoff{Min: time.Second, Max: priorityInterval}
	for {
		next := priorityInterval
		if err := s.makePriorityClasses(ctx); err == nil {
			pauses.Reset()
		} else if ctx.Err() == nil {
			next = pauses.Next(err)
			s.log.Warn("System priority classes not made yet", zap.Error(err), zap.Duration(metrics.KeyRetryAfter, next))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(next):
		}
	}
}

func (s *Service) makePriorityClasses(ctx context.Context) error {
	var problems []error
	for _, class := range scheduling.SystemClasses() {
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := s.makePriorityClass(short, class)
		cancel()
		if err != nil && !apierr.IsAlreadyExists(err) {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// makePriorityClass creates a class, or restores the fields of it that a user may change.
func (s *Service) makePriorityClass(ctx context.Context, class *schedulingv1.PriorityClass) error {
	k := kinds.Of(class)
	stored, ok := s.store.GetCached(registry.KeyOf(k, "", class.GetMetadata().GetName()))
	if !ok {
		return s.createOwn(ctx, class)
	}
	o, err := registry.Decode(k, stored)
	if err != nil {
		return err
	}
	has := o.(*schedulingv1.PriorityClass)
	if has.GetDescription() == class.GetDescription() && !has.GetGlobalDefault() {
		return nil
	}
	now := proto.CloneOf(has)
	now.Description, now.GlobalDefault = class.GetDescription(), false
	a, err := anypb.New(now)
	if err != nil {
		return err
	}
	_, err = s.pipeline.Update(ctx, self, &apiv1.UpdateRequest{Object: a})
	return err
}

// priorityClasses returns all priority classes that the cache holds.
func (s *Service) priorityClasses(ctx context.Context) ([]*schedulingv1.PriorityClass, error) {
	k := kinds.Of(new(schedulingv1.PriorityClass))
	list, err := s.store.List(ctx, storage.ListOptions{Group: k.Group, Kind: k.Name, Stale: true})
	if err != nil {
		return nil, storage.APIError(err)
	}
	classes := make([]*schedulingv1.PriorityClass, 0, len(list.Objects))
	for _, stored := range list.Objects {
		o, err := registry.Decode(k, stored)
		if err != nil {
			return nil, err
		}
		classes = append(classes, o.(*schedulingv1.PriorityClass))
	}
	return classes, nil
}
