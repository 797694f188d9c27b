package auth

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/scheme"
	"github.com/xebec-project/xebec/internal/token"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

const (
	defaultLifetime = time.Hour
	minLifetime     = 10 * time.Minute
	// maxAsked is the longest lifetime that may be asked for; what is given is bounded by the
	// configuration.
	maxAsked = 100 * 365 * 24 * time.Hour
	// maxAudiences bounds those of one token.
	maxAudiences = 16
)

// CreateToken makes a token for an account that exists, bound to a pod of it where one is named.
func (s *Service) CreateToken(ctx context.Context, req *authv1.CreateTokenRequest) (*authv1.CreateTokenResponse, error) {
	if err := checkRequest(req); err != nil {
		return nil, err
	}
	account, pod, err := s.holders(ctx, req)
	if err != nil {
		return nil, err
	}
	about := token.Bound{
		Namespace:      req.GetNamespace(),
		ServiceAccount: token.Reference{Name: req.GetServiceAccount(), UID: account.GetMetadata().GetUid()},
	}
	if pod != nil {
		about.Pod = &token.Reference{Name: pod.GetMetadata().GetName(), UID: pod.GetMetadata().GetUid()}
	}
	ring, err := s.keys.use()
	if err != nil {
		return nil, err
	}
	lifetime := min(cmp.Or(time.Duration(req.GetExpirationSeconds())*time.Second, defaultLifetime), s.cfg.MaxLifetime)
	now := time.Now().Truncate(time.Second)
	audiences := req.GetAudiences()
	if len(audiences) == 0 {
		audiences = []string{s.cfg.Issuer}
	}
	key := ring.signing(now)
	signed, err := token.Sign(key.id, key.private, token.Claims{
		Claims: jwt.Claims{
			Issuer: s.cfg.Issuer, Subject: about.User(), Audience: audiences, ID: uuid.NewString(),
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(lifetime)),
		},
		Kubernetes: about,
	})
	if err != nil {
		return nil, apierr.Internal("sign token: %v", err)
	}
	return &authv1.CreateTokenResponse{Token: signed, ExpirationTimestamp: timestamppb.New(now.Add(lifetime))}, nil
}

func checkRequest(req *authv1.CreateTokenRequest) error {
	switch {
	case req.GetNamespace() == "":
		return apierr.BadField("namespace", "is required")
	case req.GetServiceAccount() == "":
		return apierr.BadField("serviceAccount", "is required")
	case req.GetExpirationSeconds() != 0 && req.GetExpirationSeconds() < int64(minLifetime/time.Second),
		req.GetExpirationSeconds() > int64(maxAsked/time.Second):
		return apierr.BadField("expirationSeconds", "must be %d to %d, is %d",
			int64(minLifetime/time.Second), int64(maxAsked/time.Second), req.GetExpirationSeconds())
	case len(req.GetAudiences()) > maxAudiences:
		return apierr.BadField("audiences", "must not have more than %d, has %d", maxAudiences, len(req.GetAudiences()))
	case slices.Contains(req.GetAudiences(), ""):
		return apierr.BadField("audiences", "must not have an empty one: leave audiences out for tokens for the apiserver")
	case req.GetBoundPod() != nil && req.GetBoundPod().GetName() == "":
		return apierr.BadField("boundPod.name", "is required")
	}
	return nil
}

// holders returns the account that a token is made for and the pod that it is bound to, nil where
// none is named, if the caller may have such a token: an administrator any, a node those of the
// pods bound to it.
func (s *Service) holders(ctx context.Context, req *authv1.CreateTokenRequest) (*corev1.ServiceAccount, *corev1.Pod, error) {
	id := edge.IdentityFromContext(ctx)
	node, isNode := strings.CutPrefix(id.User, pki.NodeUserPrefix)
	isNode = isNode && id.Member(pki.GroupNodes)
	named := req.GetBoundPod().GetName()
	switch {
	case id.Member(pki.GroupMasters):
		isNode = false
	case !isNode:
		return nil, nil, apierr.Denied("%s may not make tokens: administrators and nodes may", id.User)
	case named == "":
		return nil, nil, apierr.Denied("node %s may only make tokens that are bound to a pod of its own", node)
	}
	// A pod waits for this to start: both are read at once.
	var (
		reads              sync.WaitGroup
		account            *corev1.ServiceAccount
		pod                *corev1.Pod
		noAccount, failure error
	)
	reads.Go(func() {
		account, noAccount = client.Get[*corev1.ServiceAccount](ctx, s.client, req.GetNamespace(), req.GetServiceAccount())
	})
	if named != "" {
		pod, failure = client.Get[*corev1.Pod](ctx, s.client, req.GetNamespace(), named)
	}
	reads.Wait()
	gone := apierr.IsNotFound(failure)
	// Whether the pod exists is none of the node's business unless it is bound to it.
	spec := pod.GetSpec()
	if isNode && (gone || failure == nil && (spec.GetNodeName() != node || spec.GetServiceAccountName() != req.GetServiceAccount())) {
		return nil, nil, apierr.Denied("no pod %s/%s of service account %q is bound to node %s",
			req.GetNamespace(), named, req.GetServiceAccount(), node)
	}
	if err := cmp.Or(failure, noAccount); err != nil {
		return nil, nil, apierr.From(err)
	}
	if isNode {
		if err := s.checkAudiences(node, pod, req.GetAudiences()); err != nil {
			return nil, nil, err
		}
	}
	if pod == nil {
		return account, nil, nil
	}
	if uid := req.GetBoundPod().GetUid(); uid != "" && uid != pod.GetMetadata().GetUid() {
		return nil, nil, apierr.Conflict(kinds.Of(pod), named, "it has another uid than the one named")
	}
	if runsAs := pod.GetSpec().GetServiceAccountName(); runsAs != req.GetServiceAccount() {
		return nil, nil, apierr.BadField("boundPod", "pod %s runs as service account %q, not %q", named, runsAs, req.GetServiceAccount())
	}
	return account, pod, nil
}

// checkAudiences refuses a node tokens for audiences that the pod has no projected volume for, as
// Kubernetes' ServiceAccountNodeAudienceRestriction does: a node that was broken into could act
// towards any service outside the cluster otherwise. Tokens for the apiserver itself are always
// given.
func (s *Service) checkAudiences(node string, pod *corev1.Pod, audiences []string) error {
	for _, audience := range audiences {
		if audience != s.cfg.Issuer && !slices.ContainsFunc(pod.GetSpec().GetVolumes(), func(v *corev1.Volume) bool {
			return slices.ContainsFunc(v.GetVolumeSource().GetProjected().GetSources(), func(p *corev1.VolumeProjection) bool {
				return p.GetServiceAccountToken() != nil && p.GetServiceAccountToken().GetAudience() == audience
			})
		}) {
			return apierr.Denied("node %s may not make a token for audience %q: no projected volume of pod %s/%s asks for it",
				node, audience, pod.GetMetadata().GetNamespace(), pod.GetMetadata().GetName())
		}
	}
	return nil
}

// ReviewToken says whose a token is.
func (s *Service) ReviewToken(ctx context.Context, req *authv1.ReviewTokenRequest) (*authv1.ReviewTokenResponse, error) {
	id := edge.IdentityFromContext(ctx)
	if !id.Member(pki.GroupMasters) && !id.Member(pki.GroupServices) && !id.Member(pki.GroupNodes) {
		return nil, apierr.Denied("%s may not have tokens reviewed", id.User)
	}
	ring, err := s.keys.use()
	if err != nil {
		return nil, err
	}
	c, shared, err := ring.public.Verify(req.GetToken(), req.GetAudiences())
	if err == nil {
		err = s.stillBound(ctx, c.Kubernetes)
	}
	if bad := (*token.InvalidError)(nil); errors.As(err, &bad) {
		return &authv1.ReviewTokenResponse{Error: bad.Error()}, nil
	}
	if err != nil {
		return nil, err
	}
	b := c.Kubernetes
	resp := &authv1.ReviewTokenResponse{
		Authenticated: true, User: b.User(), Uid: b.ServiceAccount.UID, Audiences: shared, ExpirationTimestamp: timestamppb.New(c.Expiry.Time()),
		Groups: b.Groups(),
	}
	if b.Pod != nil {
		resp.BoundPod = &authv1.BoundPod{Name: b.Pod.Name, Uid: b.Pod.UID}
	}
	return resp, nil
}

// stillBound refuses a token whose account or pod is gone, or was replaced by another of the same
// name.
func (s *Service) stillBound(ctx context.Context, b token.Bound) error {
	if err := exists(ctx, s, s.accounts, b.Namespace, b.ServiceAccount); err != nil || b.Pod == nil {
		return err
	}
	return exists(ctx, s, s.pods, b.Namespace, *b.Pod)
}

// exists looks into the mirror first, and asks the apiserver about what the mirror does not have:
// it may be too new.
func exists[T scheme.Object](ctx context.Context, s *Service, mirror *client.Informer[T], namespace string, ref token.Reference) error {
	object, ok := mirror.Get(namespace, ref.Name)
	if !ok || object.GetMetadata().GetUid() != ref.UID {
		var err error
		if object, err = client.Get[T](ctx, s.client, namespace, ref.Name); apierr.IsNotFound(err) {
			return token.Invalid("%s %s/%s is gone", strings.ToLower(mirror.Kind().Name), namespace, ref.Name)
		} else if err != nil {
			return apierr.From(err)
		}
	}
	if object.GetMetadata().GetUid() != ref.UID {
		return token.Invalid("%s %s/%s is another one now", strings.ToLower(mirror.Kind().Name), namespace, ref.Name)
	}
	return nil
}

// ListKeys returns the public keys.
func (s *Service) ListKeys(context.Context, *authv1.ListKeysRequest) (*authv1.ListKeysResponse, error) {
	ring, err := s.keys.use()
	if err != nil {
		return nil, err
	}
	set, err := json.Marshal(ring.keySet())
	if err != nil {
		return nil, apierr.Internal("write the key set: %v", err)
	}
	resp := &authv1.ListKeysResponse{Jwks: string(set), Issuer: s.cfg.Issuer}
	signing := ring.signing(time.Now())
	for _, k := range ring.keys {
		resp.Keys = append(resp.Keys, &authv1.TokenKey{Id: k.id, CreationTimestamp: timestamppb.New(k.created), Signing: k.id == signing.id})
	}
	return resp, nil
}

// RotateKey makes a new key.
func (s *Service) RotateKey(ctx context.Context, _ *authv1.RotateKeyRequest) (*authv1.RotateKeyResponse, error) {
	id, err := s.keys.rotate(ctx)
	switch {
	case errors.Is(err, errManyKeys):
		return nil, apierr.FailedPrecondition(apierr.ReasonTooManyKeys, "keys", "%v", err)
	case err != nil:
		return nil, apierr.Unavailable("rotate the keys for tokens: %v", err)
	}
	return &authv1.RotateKeyResponse{Id: id}, nil
}
