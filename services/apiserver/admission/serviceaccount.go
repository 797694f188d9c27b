package admission

import (
	"context"
	"fmt"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/apiserver/registry"
)

// serviceAccount refuses new pods whose service account does not exist, and gives the others what
// comes with theirs: the secrets for pulling images where the pod names none, and the account's
// token as a volume.
type serviceAccount struct {
	// missing is called for a pod whose default account does not exist. The pod is admitted and starts
	// when the account has been created again.
	missing func()
}

// Name is Kubernetes' name of it.
func (serviceAccount) Name() string { return "ServiceAccount" }

// Mutate completes a new pod.
func (p serviceAccount) Mutate(ctx context.Context, a *Attributes) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || a.Operation != Create || a.Subresource != "" {
		return nil
	}
	spec, name := pod.GetSpec(), pod.GetSpec().GetServiceAccountName()
	if name == "" || a.Namespace == "" {
		return nil // a mirror pod has no account; validation reports a missing namespace
	}
	account, err := p.get(ctx, a, name)
	if err != nil {
		return err
	}
	if len(spec.GetImagePullSecrets()) == 0 {
		spec.ImagePullSecrets = account.GetImagePullSecrets()
	}
	if core.Automounts(spec, account) {
		core.MountAccountToken(spec, registry.NameSuffix())
	}
	return nil
}

// get reads the account; a missing default account is nil.
func (p serviceAccount) get(ctx context.Context, a *Attributes, name string) (*corev1.ServiceAccount, error) {
	account, found, err := read[*corev1.ServiceAccount](ctx, a, a.Namespace, name)
	switch {
	case err != nil || found:
		return account, err
	case name == core.DefaultServiceAccount:
		p.missing()
		return nil, nil
	}
	return nil, apierr.Forbidden(a.Kind, a.Name,
		fmt.Sprintf("error looking up service account %s/%s: serviceaccount %q not found", a.Namespace, name, name))
}
