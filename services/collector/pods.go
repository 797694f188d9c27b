package collector

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// finishedInterval is how often finished pods are counted.
const finishedInterval = 20 * time.Second

// finishedPods deletes the oldest of the pods that have ended when there are too many.
type finishedPods struct {
	client   *client.Client
	informer *client.Informer[scheme.Object]
	keep     int
	log      *zap.Logger
}

func (f *finishedPods) run(ctx context.Context) error {
	tick := time.NewTicker(finishedInterval)
	defer tick.Stop()
	for {
		for _, pod := range surplus(f.informer.List(), f.keep) {
			m := pod.GetMetadata()
			_, err := client.Delete[*corev1.Pod](ctx, f.client, m.GetNamespace(), m.GetName(),
				client.IfUID(m.GetUid()), client.GracePeriod(0))
			if apierr.IsElectionLost(err) {
				return err
			}
			if err != nil && !apierr.IsNotFound(err) && ctx.Err() == nil {
				f.log.Warn("Finished pod not deleted", zap.Stringer(metrics.KeyObject, client.KeyOf(pod)), zap.Error(err))
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// surplus returns the pods that have ended beyond the number to keep, the oldest first.
func surplus(pods []scheme.Object, keep int) []scheme.Object {
	ended := slices.DeleteFunc(pods, func(o scheme.Object) bool {
		phase := o.(*corev1.Pod).GetStatus().GetPhase()
		return phase != "Succeeded" && phase != "Failed"
	})
	if len(ended) <= keep {
		return nil
	}
	slices.SortFunc(ended, func(a, b scheme.Object) int {
		x, y := a.GetMetadata(), b.GetMetadata()
		return cmp.Or(x.GetCreationTimestamp().AsTime().Compare(y.GetCreationTimestamp().AsTime()),
			strings.Compare(client.KeyOf(a).String(), client.KeyOf(b).String()))
	})
	return ended[:len(ended)-keep]
}
