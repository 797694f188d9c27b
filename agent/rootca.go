package agent

import (
	"bytes"
	"context"
	"time"

	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/pki"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// rootCAInterval is how often it is looked whether the authorities changed.
const rootCAInterval = 10 * time.Second

// rootCA shows the cluster's authorities, as this node trusts them, to pods as the config map
// kind.RootCAConfigMap. No such object is stored: every node has what it would hold, so that no pod
// waits for it, and no namespace has to be written when authorities rotate.
type rootCA struct{ tls *pki.Source }

func (r rootCA) configMap(namespace string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		Metadata: &metav1.ObjectMeta{Name: core.RootCAConfigMap, Namespace: namespace},
		Data:     map[string]string{core.RootCAKey: string(r.tls.Authorities())},
	}
}

// follow calls changed when the authorities changed, until ctx ends.
func (r rootCA) follow(ctx context.Context, changed func()) {
	tick := time.NewTicker(rootCAInterval)
	defer tick.Stop()
	for shown := r.tls.Authorities(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := r.tls.Authorities(); !bytes.Equal(now, shown) {
			shown = now
			changed()
		}
	}
}

func isRootCA(kindName, name string) bool {
	return kindName == "ConfigMap" && name == core.RootCAConfigMap
}
