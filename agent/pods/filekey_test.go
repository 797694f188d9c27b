package pods_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestFileKeyRef plays Kubernetes' specs of FileKeyRef: an init container writes a file of
// variables, and containers that do not mount its volume have them in their environment.
func TestFileKeyRef(t *testing.T) {
	n := start(t)
	from := func(key string, optional bool) *corev1.EnvVar {
		ref := &corev1.FileKeySelector{VolumeName: "config", Path: "sub/config.env", Key: key, Optional: proto.Bool(optional)}
		return &corev1.EnvVar{Name: "FILE_" + key, ValueFrom: &corev1.EnvVarSource{FileKeyRef: ref}}
	}
	change := func(medium string, env ...*corev1.EnvVar) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Volumes = []*corev1.Volume{volume("config", &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium}})}
			setup := container("setup", `cd /config; busybox mkdir sub; printf "# written by setup\nA='1 # \$HOME'\nB='two\nlines'\n" > sub/config.env`)
			setup.VolumeMounts = []*corev1.VolumeMount{{Name: "config", MountPath: "/config"}}
			p.Spec.InitContainers = []*corev1.Container{setup}
			p.Spec.Containers[0].Env = append(env, &corev1.EnvVar{Name: "LATER", Value: "$(FILE_A)!"})
		}
	}
	const script = `echo "[$FILE_A] [$FILE_B] [${FILE_C-unset}] [$LATER]"; test -e /config && echo mounted; sleep 3600`
	for _, medium := range []string{"", "Memory"} {
		uid := n.create(pod("reads"+strings.ToLower(medium), script, change(medium, from("A", false), from("B", false), from("C", true))))
		p := n.until(uid, "it runs", core.IsPodReady)
		const want = "[1 # $HOME] [two\nlines] [unset] [1 # $HOME!]\n"
		var got string
		n.until(uid, "it has written what it sees", func(*corev1.Pod) bool {
			got = n.log(p, false)
			return strings.Count(got, "\n") >= strings.Count(want, "\n")
		})
		if got != want {
			t.Errorf("medium %q: the container sees\n%s, want\n%s", medium, got, want)
		}
		n.delete(uid)
		n.untilGone(uid)
	}

	uid := n.create(pod("lacks", script, change("", from("C", false))))
	p := n.until(uid, "its main container waits", waitingFor("CreateContainerConfigError"))
	const want = `environment variable key "C" not found in file "sub/config.env" of volume "config"`
	if m := status(p).GetState().GetWaiting().GetMessage(); !strings.Contains(m, want) {
		t.Errorf("the message is %q, want one with %q", m, want)
	}
}
