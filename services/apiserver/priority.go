package apiserver

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/scheduling"
	"github.com/xebec-project/xebec/internal/metrics"
	schedulingv1 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// ownInterval is how often it is looked whether the objects that every cluster has are as they
// should be.
const ownInterval = time.Minute

// keepObjects calls ensure, which makes objects that every cluster has and restores their fields,
// again and again until ctx ends. what names them in the log. Every instance does it, for all want
// the same.
func (s *Service) keepObjects(ctx context.Context, what string, ensure func(context.Context) error) {
	pauses := backoff.Backoff{Min: time.Second, Max: ownInterval}
	for {
		next := ownInterval
		if err := ensure(ctx); err == nil {
			pauses.Reset()
		} else if ctx.Err() == nil {
			next = pauses.Next(err)
			s.log.Warn("Failed to make objects that every cluster has", zap.String(metrics.KeyObject, what), zap.Error(err),
				zap.Duration(metrics.KeyRetryAfter, next))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(next):
		}
	}
}

// makePriorityClasses makes the priority classes that every cluster has.
func (s *Service) makePriorityClasses(ctx context.Context) error {
	var problems []error
	for _, class := range scheduling.SystemClasses() {
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := s.makePriorityClass(short, class)
		cancel()
		if err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// makePriorityClass creates a class, or restores the fields of it that a user may change.
func (s *Service) makePriorityClass(ctx context.Context, class *schedulingv1.PriorityClass) error {
	return keepOwn(ctx, s, class, func(stored *schedulingv1.PriorityClass) bool {
		if stored.GetDescription() == class.GetDescription() && !stored.GetGlobalDefault() {
			return false
		}
		stored.Description, stored.GlobalDefault = class.GetDescription(), false
		return true
	})
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
