package apiserver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/authz"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// accountsInterval is how often it is looked whether every namespace has its default account.
const accountsInterval = 30 * time.Second

// AccountsConfig gives service accounts rights, as namespace/name each. There are no roles: who is in neither list may ask
// who it is and what it may do, and nothing else.
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
				problems = append(problems, fmt.Errorf("serviceAccounts.%s: %q is not namespace/name", key, account))
			}
		}
	}
	return errors.Join(problems...)
}

// users are the accounts as the authorizer knows callers.
func users(accounts []string) map[string]bool {
	out := make(map[string]bool, len(accounts))
	for _, account := range accounts {
		namespace, name, _ := strings.Cut(account, "/")
		out[authz.AccountUser(namespace, name)] = true
	}
	return out
}

// accountWrite makes a namespace's default account, in the transaction that makes the namespace: no pod ever finds the one
// without the other. It is no write when there is one left of a former namespace of the name.
func accountWrite(ctx context.Context, get reader, namespace string) ([]storage.Write, error) {
	k, _ := kind.ByGroupKind("", "ServiceAccount")
	key := keyOf(k, namespace, kind.DefaultServiceAccount)
	if _, err := get(ctx, key); err == nil {
		return nil, nil
	} else if !errors.Is(err, storage.ErrNotFound) {
		return nil, storageError(err)
	}
	account := &corev1.ServiceAccount{Metadata: &metav1.ObjectMeta{Name: kind.DefaultServiceAccount, Namespace: namespace,
		Uid: uuid.NewString(), CreationTimestamp: timestamppb.New(time.Now().Truncate(time.Second))}}
	b, err := encode(k, account)
	return []storage.Write{{Key: key, Bytes: b}}, err
}

// admitAccount refuses a new pod whose service account does not exist, as Kubernetes does, and gives the others what comes with
// theirs: the secrets for pulling images where the pod names none, and its token as a volume. The default account is made
// together with its namespace; where somebody deleted it, the pod is taken, and starts when it is made again.
func (s *Service) admitAccount(ctx context.Context, get reader, o kind.Object) error {
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return nil
	}
	spec, namespace := pod.GetSpec(), pod.GetMetadata().GetNamespace()
	name := spec.GetServiceAccountName()
	if name == "" || namespace == "" {
		return nil // a mirror has no account; that the namespace is missing, validation tells
	}
	k, _ := kind.ByGroupKind("", "ServiceAccount")
	var account *corev1.ServiceAccount
	stored, err := get(ctx, keyOf(k, namespace, name))
	switch {
	case errors.Is(err, storage.ErrNotFound) && name != kind.DefaultServiceAccount:
		return apierr.Forbidden(kind.Of(pod), pod.GetMetadata().GetName(),
			fmt.Sprintf("error looking up service account %s/%s: serviceaccount %q not found", namespace, name, name))
	case errors.Is(err, storage.ErrNotFound):
		s.accountsLost.notify()
	case err != nil:
		return storageError(err)
	default:
		decoded, err := decodeStored(k, stored)
		if err != nil {
			return err
		}
		account = decoded.(*corev1.ServiceAccount)
	}
	if len(spec.GetImagePullSecrets()) == 0 {
		spec.ImagePullSecrets = account.GetImagePullSecrets()
	}
	if kind.Automounts(spec, account) {
		kind.MountAccountToken(spec, nameSuffix())
	}
	return nil
}

// signal wakes one that waits, however often it is given before that.
type signal chan struct{}

func (s signal) notify() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// keepAccounts makes the default account of every namespace that lost it, or is older than this, until ctx ends: at once where it
// is deleted here and where a pod lacks it.
func (s *Service) keepAccounts(ctx context.Context) {
	pauses := backoff.Backoff{Min: time.Second, Max: accountsInterval}
	for {
		next := accountsInterval
		if err := s.makeAccounts(ctx); err == nil {
			pauses.Reset()
		} else if ctx.Err() == nil {
			next = pauses.Next(err)
			s.log.Warn("Default service accounts not made yet", zap.Error(err), zap.Duration("retryIn", next))
		}
		select {
		case <-ctx.Done():
			return
		case <-s.accountsLost:
		case <-time.After(next):
		}
	}
}

func isDefaultAccount(o kind.Object) bool {
	_, ok := o.(*corev1.ServiceAccount)
	return ok && o.GetMetadata().GetName() == kind.DefaultServiceAccount
}

// makeAccounts reads linearizably, so that it sees the deletion that it was told of.
func (s *Service) makeAccounts(ctx context.Context) error {
	list, err := s.store.List(ctx, storage.ListOptions{Kind: "Namespace"})
	if err != nil {
		return err
	}
	k, _ := kind.ByGroupKind("", "ServiceAccount")
	var problems []error
	for _, o := range list.Objects {
		namespace := o.Key.Name
		if _, has := s.store.GetCached(keyOf(k, namespace, kind.DefaultServiceAccount)); has || o.Meta().GetDeletionTimestamp() != nil {
			continue
		}
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := s.writeOne(short, nil, false, func(ctx context.Context, get reader) (*change, error) {
			account := &corev1.ServiceAccount{Metadata: &metav1.ObjectMeta{Name: kind.DefaultServiceAccount, Namespace: namespace}}
			return s.createChange(ctx, get, k, account, "", 0)
		})
		cancel()
		if err != nil && !apierr.IsAlreadyExists(err) {
			problems = append(problems, fmt.Errorf("%s: %w", namespace, err))
		}
	}
	return errors.Join(problems...)
}
