package apiserver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// accountsInterval is the time between two checks that every namespace has its default account.
const accountsInterval = 30 * time.Second

// AccountsConfig gives service accounts rights, as namespace/name each. There are no roles: an
// account in neither list may only ask for its identity and its rights.
type AccountsConfig struct {
	// Readers may get, list and watch everything but secrets.
	Readers []string `yaml:"readers" help:"service accounts, as namespace/name, that may read everything but secrets"`
	// Admins may do everything.
	Admins []string `yaml:"admins" help:"service accounts, as namespace/name, that may do everything"`
}

func (c AccountsConfig) validate() error {
	var problems []error
	for key, accounts := range map[string][]string{"readers": c.Readers, "admins": c.Admins} {
		for _, account := range accounts {
			if namespace, name, ok := strings.Cut(account, "/"); !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
				problems = append(problems, fmt.Errorf("serviceAccounts.%s: invalid account %q: want NAMESPACE/NAME", key, account))
			}
		}
	}
	return errors.Join(problems...)
}

// users returns the accounts as user names, which the authorizer compares with callers.
func users(accounts []string) map[string]bool {
	out := make(map[string]bool, len(accounts))
	for _, account := range accounts {
		namespace, name, _ := strings.Cut(account, "/")
		out[authz.AccountUser(namespace, name)] = true
	}
	return out
}

// signal wakes one waiting goroutine. Several notifications before the wait count as one.
type signal chan struct{}

func (s signal) notify() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// keepAccounts creates missing default accounts of namespaces until ctx ends. It does so
// immediately when an account is deleted by this apiserver or missing for a pod.
func (s *Service) keepAccounts(ctx context.Context) {
	pauses := backoff.Backoff{Min: time.Second, Max: accountsInterval}
	for {
		next := accountsInterval
		if err := s.makeAccounts(ctx); err == nil {
			pauses.Reset()
		} else if ctx.Err() == nil {
			next = pauses.Next(err)
			s.log.Warn("Failed to create default service accounts", zap.Error(err), zap.Duration(metrics.KeyRetryAfter, next))
		}
		select {
		case <-ctx.Done():
			return
		case <-s.accountsLost:
		case <-time.After(next):
		}
	}
}

// makeAccounts reads linearizably, so that it sees the deletion that it was notified of.
func (s *Service) makeAccounts(ctx context.Context) error {
	list, err := s.store.List(ctx, storage.ListOptions{Kind: "Namespace"})
	if err != nil {
		return err
	}
	k := kinds.Of(new(corev1.ServiceAccount))
	var problems []error
	for _, o := range list.Objects {
		namespace := o.Key.Name
		if _, has := s.store.GetCached(registry.KeyOf(k, namespace, core.DefaultServiceAccount)); has || o.Meta().GetDeletionTimestamp() != nil {
			continue
		}
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := s.createOwn(short, &corev1.ServiceAccount{Metadata: &metav1.ObjectMeta{Name: core.DefaultServiceAccount, Namespace: namespace}})
		cancel()
		if err != nil && !apierr.IsAlreadyExists(err) {
			problems = append(problems, fmt.Errorf("%s: %w", namespace, err))
		}
	}
	return errors.Join(problems...)
}
