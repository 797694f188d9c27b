package client

import (
	"context"

	"google.golang.org/grpc/metadata"

	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
)

// prioritize marks a call about Lease objects, which elections and the signs of life of nodes
// depend on, so that busy servers take it before other calls.
func prioritize(ctx context.Context, k *scheme.Kind) context.Context {
	if k == nil || k.Name != "Lease" || k.Group != "coordination.k8s.io" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, edge.HeaderLease, "true")
}

// prioritizeObject is prioritize for a call about an object.
func prioritizeObject(ctx context.Context, obj scheme.Object) context.Context {
	k, _ := kinds.ByMessage(obj.ProtoReflect().Descriptor().FullName())
	return prioritize(ctx, k)
}
