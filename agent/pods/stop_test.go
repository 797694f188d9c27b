package pods_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// journal gives a pod's containers a directory of the node at /h, where they write what happens to
// them.
func journal(t *testing.T, p *corev1.Pod) (read func() string) {
	dir := t.TempDir()
	p.Spec.Volumes = append(p.Spec.Volumes, &corev1.Volume{Name: "h", VolumeSource: &corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}})
	for _, list := range [][]*corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range list {
			c.VolumeMounts = append(c.VolumeMounts, &corev1.VolumeMount{Name: "h", MountPath: "/h"})
		}
	}
	return func() string {
		b, _ := os.ReadFile(filepath.Join(dir, "log"))
		return strings.Join(strings.Fields(string(b)), " ")
	}
}

// heeding is a container that tells when it can take SIGTERM, and what it does then.
func heeding(name, onTerm string) *corev1.Container {
	return container(name, "trap '"+onTerm+"; exit 0' TERM; touch /h/"+name+"-heeds; while :; do sleep 0.1; done")
}

func sidecarOf(c *corev1.Container) *corev1.Container {
	c.RestartPolicy = proto.String("Always")
	return c
}

func TestStopOrder(t *testing.T) {
	n := start(t)
	hook := func(script string) *corev1.Lifecycle {
		return &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", script}}}}
	}
	for _, c := range []struct {
		name  string
		grace int64
		side  []*corev1.Container
		main  *corev1.Container
		want  string
		// least and most bound how long the end takes.
		least, most time.Duration
	}{
		{
			name: "sidecars end after the main container in reverse order", grace: 600,
			side: []*corev1.Container{heeding("one", "echo one >> /h/log"), heeding("two", "sleep 0.5; echo two >> /h/log")},
			main: heeding("main", "sleep 1; echo main >> /h/log"), want: "main two one", most: 5 * time.Minute,
		},
		{
			name: "sidecars are signaled at the end of the grace period", grace: 3,
			side: []*corev1.Container{heeding("one", "echo one >> /h/log"), heeding("two", "sleep 1; echo two >> /h/log")},
			main: heeding("main", "sleep 600"), want: "one two", least: 2900 * time.Millisecond,
		},
		{
			name: "a signal follows a preStop hook that outlasts the grace period", grace: 1,
			main: func() *corev1.Container {
				c := heeding("main", "echo term >> /h/log")
				c.Lifecycle = hook("echo hook >> /h/log; sleep 600; echo never >> /h/log")
				return c
			}(),
			want: "hook term", least: 900 * time.Millisecond,
		},
		{
			name: "who heeds neither is killed two seconds later", grace: 1,
			main: func() *corev1.Container {
				c := heeding("main", "echo term >> /h/log; sleep 600; echo never >> /h/log")
				c.Lifecycle = hook("sleep 600")
				return c
			}(),
			want: "term", least: 2900 * time.Millisecond,
		},
		{
			name: "without a grace period there is no signal", grace: 0,
			side: []*corev1.Container{heeding("one", "echo one >> /h/log")}, main: heeding("main", "echo main >> /h/log"), want: "",
		},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			one := *n
			one.T = t
			p := pod("stops", "", func(p *corev1.Pod) {
				p.Spec.TerminationGracePeriodSeconds = &c.grace
				p.Spec.Containers = []*corev1.Container{c.main}
				for _, s := range c.side {
					p.Spec.InitContainers = append(p.Spec.InitContainers, sidecarOf(s))
				}
			})
			read := journal(t, p)
			uid := one.create(p)
			one.until(uid, "all heed signals", func(q *corev1.Pod) bool {
				for _, list := range [][]*corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
					for _, c := range list {
						if _, err := os.Stat(filepath.Join(p.Spec.Volumes[0].GetVolumeSource().GetHostPath().GetPath(), c.Name+"-heeds")); err != nil {
							return false
						}
					}
				}
				return core.IsPodReady(q)
			})
			began := time.Now()
			one.delete(uid)
			one.untilGone(uid)
			took := time.Since(began)
			if got := read(); got != c.want {
				t.Errorf("the order was %q, want %q", got, c.want)
			}
			if took < c.least || c.most > 0 && took > c.most {
				t.Errorf("it took %v, want at least %v", took, c.least)
			}
		})
	}
}
