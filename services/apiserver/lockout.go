package apiserver

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/allowlist"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/rpc"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	gatewayv1 "github.com/xebec-project/xebec/proto/xebec/gateway/v1"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// maxNamed bounds the nodes that a refusal names.
const maxNamed = 5

// checkLockout refuses an access list that would refuse connections of its writer, or of nodes of
// the cluster, unless the call allows a lockout. A node is not locked out if either listener admits
// one of its addresses: its own configuration decides which listener it uses.
func (s *Service) checkLockout(ctx context.Context, access *gatewayv1.GatewayAccess) error {
	if slices.Equal(metadata.ValueFromIncomingContext(ctx, allowlist.HeaderAllowLockout), []string{"true"}) {
		return nil
	}
	k := kinds.Of(access)
	if len(k.Validate(access)) > 0 {
		return nil // validation names the mistake
	}
	refuse := func(format string, args ...any) error {
		return apierr.FailedPrecondition(apierr.ReasonLockout, access.GetMetadata().GetName(),
			"%s %q would lock out %s: add the addresses to the list, or force the change if it is intended",
			k.Resource(), access.GetMetadata().GetName(), fmt.Sprintf(format, args...))
	}
	spec := access.GetSpec()
	source, listener := rpc.Source(ctx)
	used := spec.GetPrivate()
	if listener == "public" {
		used = spec.GetPublic()
	}
	if source.IsValid() && !admits(used, source) {
		return refuse("your own connection from %s to the %s listener", source, listener)
	}
	// A listener without a list here uses the list of the gateways' configurations, which is not
	// known.
	if spec.GetPrivate() == nil || admitsAll(spec.GetPrivate()) || spec.GetPublic() != nil && admitsAll(spec.GetPublic()) {
		return nil
	}
	nodes, err := s.store.List(ctx, storage.ListOptions{Kind: "Node", Stale: true})
	if err != nil {
		return storage.APIError(err)
	}
	var out []string
	for _, o := range nodes.Objects {
		node := &corev1.Node{}
		if err := proto.Unmarshal(o.Bytes, node); err != nil {
			return err
		}
		if addresses, in := admitsNode(spec, node); !in {
			out = append(out, fmt.Sprintf("%s (%s)", node.GetMetadata().GetName(), strings.Join(addresses, ", ")))
		}
	}
	switch {
	case len(out) > maxNamed:
		return refuse("%d nodes, such as %s", len(out), strings.Join(out[:maxNamed], ", "))
	case len(out) > 0:
		return refuse("nodes %s", strings.Join(out, ", "))
	}
	return nil
}

func admitsNode(spec *gatewayv1.GatewayAccessSpec, node *corev1.Node) (addresses []string, in bool) {
	for _, a := range node.GetStatus().GetAddresses() {
		addr, err := netip.ParseAddr(a.GetAddress())
		if err != nil {
			continue
		}
		if admits(spec.GetPrivate(), addr) || spec.GetPublic() != nil && admits(spec.GetPublic(), addr) {
			return nil, true
		}
		addresses = append(addresses, a.GetAddress())
	}
	return addresses, len(addresses) == 0
}

// admits reports whether a listener accepts connections from a source, as far as the object says.
func admits(l *gatewayv1.ListenerAccess, source netip.Addr) bool {
	if l == nil {
		return true
	}
	if l.Enabled != nil && !l.GetEnabled() {
		return false
	}
	list, _ := allowlist.Parse(l.GetAllowedCidrs())
	return list.Contains(source)
}

func admitsAll(l *gatewayv1.ListenerAccess) bool {
	return (l.Enabled == nil || l.GetEnabled()) && len(l.GetAllowedCidrs()) == 0
}
