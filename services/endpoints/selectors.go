package endpoints

import (
	"maps"
	"sync"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// selectors finds the services that select a pod by its labels. Services are kept under one pair of
// their selector, the one with the least services at the time, so that a lookup touches only
// services which share a pair with the pod.
type selectors struct {
	mu         sync.RWMutex
	namespaces map[string]map[pair]map[string]map[string]string // namespace, pair, service, selector
	filed      map[controller.Key]pair
}

type pair struct{ key, value string }

func newSelectors() *selectors {
	return &selectors{
		namespaces: map[string]map[pair]map[string]map[string]string{},
		filed:      map[controller.Key]pair{},
	}
}

// update follows a change of a service; either may be nil.
func (s *selectors) update(old, now *corev1.Service) {
	if old != nil && now != nil && maps.Equal(old.GetSpec().GetSelector(), now.GetSpec().GetSelector()) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old != nil {
		s.remove(client.KeyOf(old))
	}
	if now != nil && len(now.GetSpec().GetSelector()) > 0 {
		s.add(client.KeyOf(now), now.GetSpec().GetSelector())
	}
}

func (s *selectors) add(k controller.Key, selector map[string]string) {
	byPair := s.namespaces[k.Namespace]
	if byPair == nil {
		byPair = map[pair]map[string]map[string]string{}
		s.namespaces[k.Namespace] = byPair
	}
	var best pair
	found := false
	for key, value := range selector {
		p := pair{key, value}
		if !found || len(byPair[p]) < len(byPair[best]) {
			best, found = p, true
		}
	}
	if byPair[best] == nil {
		byPair[best] = map[string]map[string]string{}
	}
	byPair[best][k.Name] = selector
	s.filed[k] = best
}

func (s *selectors) remove(k controller.Key) {
	p, ok := s.filed[k]
	if !ok {
		return
	}
	delete(s.filed, k)
	byPair := s.namespaces[k.Namespace]
	delete(byPair[p], k.Name)
	if len(byPair[p]) == 0 {
		delete(byPair, p)
	}
	if len(byPair) == 0 {
		delete(s.namespaces, k.Namespace)
	}
}

// matching returns the names of the services in a namespace that select these labels.
func (s *selectors) matching(namespace string, labels map[string]string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	byPair := s.namespaces[namespace]
	if len(byPair) == 0 {
		return nil
	}
	var names []string
	for key, value := range labels {
		for name, selector := range byPair[pair{key, value}] {
			if selects(selector, labels) {
				names = append(names, name)
			}
		}
	}
	return names
}

// selects reports whether labels have every pair of selector.
func selects(selector, labels map[string]string) bool {
	for key, value := range selector {
		if have, ok := labels[key]; !ok || have != value {
			return false
		}
	}
	return true
}
