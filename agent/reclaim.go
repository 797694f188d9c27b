package agent

import (
	"time"

	"github.com/xebec-project/xebec/agent/images"
	"github.com/xebec-project/xebec/agent/pods"
	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/internal/events"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// imageGCEvery is how often the disk of images is looked at.
const imageGCEvery = 5 * time.Minute

// imageCollector makes room for images.
func (a *Agent) imageCollector(rt *runtime.Runtime, set *pods.Set, recorded *events.Recorder) *images.Collector {
	return images.NewCollector(rt.Images(), images.GC{
		High: a.cfg.ImageGCHighThresholdPercent, Low: a.cfg.ImageGCLowThresholdPercent, MinAge: a.cfg.ImageMinimumGCAge, Every: imageGCEvery, InUse: set.Images,
		Failed: func(reason, message string) {
			recorded.EventAt(nodeReference(a.cfg.Node), "Warning", reason, "%s", message)
		},
		Log: a.log,
	})
}

// nodeReference is what events of the node are about.
func nodeReference(name string) *corev1.ObjectReference {
	return &corev1.ObjectReference{ApiVersion: "v1", Kind: "Node", Name: name, Uid: name}
}
