package pods_test

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func volume(name string, src *corev1.VolumeSource) *corev1.Volume {
	return &corev1.Volume{Name: name, VolumeSource: src}
}

func local(name string) *corev1.LocalObjectReference { return &corev1.LocalObjectReference{Name: name} }

// testVolumes shows all kinds of volumes in one pod, and that their files follow what they show.
func testVolumes(n *node) {
	n.cluster.setConfigMap("settings", map[string]string{"mode": "old"})
	n.cluster.setSecret("keys", map[string][]byte{"key": []byte("k1")})
	field := func(path, name string) *corev1.DownwardAPIVolumeFile {
		return &corev1.DownwardAPIVolumeFile{Path: name, FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	uid := n.create(pod("volumes", "id -G; ls -ln /secret/..data/key /empty; stat -f -c %T /secret /memory; touch /empty/mine /sub/x; ls -n /empty/mine; df -k /memory | tail -1; ls /sub; echo end; sleep 3600", func(p *corev1.Pod) {
		p.Metadata.Labels = map[string]string{"tier": "one"}
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: proto.Int64(1000), FsGroup: proto.Int64(2000)}
		p.Spec.Volumes = []*corev1.Volume{
			volume("config", &corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: local("settings")}}),
			volume("secret", &corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "keys", DefaultMode: proto.Int32(0o400)}}),
			volume("pod", &corev1.VolumeSource{DownwardApi: &corev1.DownwardAPIVolumeSource{Items: []*corev1.DownwardAPIVolumeFile{
				field("metadata.labels", "labels"), field("metadata.name", "name"),
				{Path: "memory", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "main", Resource: "limits.memory", Divisor: &metav1.Quantity{String_: "1Mi"}}},
			}}}),
			volume("all", &corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []*corev1.VolumeProjection{
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: local("settings"), Items: []*corev1.KeyToPath{{Key: "mode", Path: "deep/mode"}}}},
				{Secret: &corev1.SecretProjection{LocalObjectReference: local("keys")}},
				{DownwardApi: &corev1.DownwardAPIProjection{Items: []*corev1.DownwardAPIVolumeFile{field("metadata.name", "name")}}},
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: local("nonesuch"), Optional: proto.Bool(true)}},
			}}}),
			volume("empty", &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
			volume("memory", &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Memory", SizeLimit: &metav1.Quantity{String_: "4Mi"}}}),
		}
		c := p.Spec.Containers[0]
		c.Env = []*corev1.EnvVar{{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}
		c.Resources = &corev1.ResourceRequirements{Limits: map[string]*metav1.Quantity{"memory": {String_: "64Mi"}}}
		for _, name := range []string{"config", "secret", "pod", "all", "empty", "memory"} {
			c.VolumeMounts = append(c.VolumeMounts, &corev1.VolumeMount{Name: name, MountPath: "/" + name})
		}
		c.VolumeMounts = append(c.VolumeMounts, &corev1.VolumeMount{Name: "empty", MountPath: "/sub", SubPathExpr: "of/$(POD)"})
		// The directory of a sub path belongs to root, as with other runtimes.
		p.Spec.InitContainers = []*corev1.Container{container("opens", "mkdir -p /empty/of/volumes && chmod 777 /empty/of/volumes")}
		p.Spec.InitContainers[0].VolumeMounts = []*corev1.VolumeMount{{Name: "empty", MountPath: "/empty"}}
	}))
	p := n.until(uid, "it has spoken", func(p *corev1.Pod) bool { return core.IsPodReady(p) && strings.Contains(n.log(p, false), "end\n") })
	for _, want := range []string{"2000", "-r--r-----    1 0        2000", "tmpfs\ntmpfs\n", "1000     2000", "4096 ", "\nx\n"} {
		if got := n.log(p, false); !strings.Contains(got, want) {
			n.Errorf("no %q in:\n%s", want, got)
		}
	}
	want := func(what, command, text string) {
		n.Helper()
		var got string
		containerdtest.Eventually(n.T, 60*time.Second, what, func() bool {
			got = n.run(p, command)
			return got == text
		})
	}
	want("all are shown", "cat /config/mode /secret/key /pod/name /pod/memory /pod/labels /all/deep/mode /all/key /all/name", "oldk1volumes64tier=\"one\"\noldk1volumes")
	n.cluster.setConfigMap("settings", map[string]string{"mode": "new", "more": "!"})
	n.cluster.setSecret("keys", map[string][]byte{"key": []byte("k2")})
	want("config map and secret are followed", "cat /config/mode /config/more /secret/key /all/deep/mode /all/key", "new!k2newk2")
	n.cluster.mu.Lock()
	labelled := proto.CloneOf(n.cluster.pods[uid])
	labelled.Metadata.Labels["tier"] = "two"
	n.cluster.put(labelled)
	n.cluster.mu.Unlock()
	want("the pod's labels are followed", "cat /pod/labels", "tier=\"two\"\n")

	n.cluster.mu.Lock()
	if len(n.cluster.follows) != 3 {
		n.Errorf("followed are %v", n.cluster.follows)
	}
	n.cluster.mu.Unlock()
	n.delete(uid)
	n.untilGone(uid)
	containerdtest.Eventually(n.T, 60*time.Second, "nothing is followed any more", func() bool {
		n.cluster.mu.Lock()
		defer n.cluster.mu.Unlock()
		return len(n.cluster.follows) == 0
	})
}

// run runs a shell command in the pod's first container and returns its output.
func (n *node) run(p *corev1.Pod, command string) string {
	n.Helper()
	in, err := n.set.Container("default", p.Metadata.Name, "", true, false)
	if err != nil {
		n.Fatal(err)
	}
	var out strings.Builder
	code, err := n.rt.Exec(n.Context(), in.ID, execConfig(command, &out))
	if err != nil || code != 0 {
		return fmt.Sprintf("%s%d %v", out.String(), code, err)
	}
	return out.String()
}

// testVolumeLimit ends a pod that fills a volume beyond its limit, and only that.
func testVolumeLimit(n *node) {
	bounded := func(p *corev1.Pod) {
		p.Spec.Volumes = []*corev1.Volume{volume("cache", &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &metav1.Quantity{String_: "2Mi"}}})}
		p.Spec.Containers[0].VolumeMounts = []*corev1.VolumeMount{{Name: "cache", MountPath: "/cache"}}
	}
	modest := n.create(pod("modest", "dd if=/dev/zero of=/cache/x bs=1M count=1; sleep 3600", bounded))
	n.until(modest, "it runs", core.IsPodReady)
	greedy := n.create(pod("greedy", "dd if=/dev/zero of=/cache/x bs=1M count=4; trap '' TERM; sleep 3600", bounded))
	p := n.until(greedy, "it is evicted", func(p *corev1.Pod) bool { return p.Status.Phase == "Failed" })
	if p.Status.Reason != "Evicted" || p.Status.Message != `Usage of EmptyDir volume "cache" exceeds the limit "2Mi".` {
		n.Errorf("status is %v", p.Status)
	}
	if p := n.cluster.get(modest); !core.IsPodReady(p) {
		n.Errorf("the pod within its limit is %v", p.Status)
	}
	if in, err := n.set.Container("default", "greedy", "", true, false); err != nil || in.Running {
		n.Errorf("its container is %+v, %v", in, err)
	}
	for _, uid := range []string{modest, greedy} {
		n.delete(uid)
		n.untilGone(uid)
	}
}
