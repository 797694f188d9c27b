package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// TestBadPods asks for pods that can't run, or not get ready: describe says why, and what to do.
func TestBadPods(t *testing.T) {
	p := sharedShip(t).person(t)
	p.loadImages(t)
	const good = "image: xebec/echo:1, imagePullPolicy: IfNotPresent"
	tests := map[string]struct {
		// container is the rest of a container named main, pod the rest of the pod's spec.
		container, pod string
		// want are in what describe says, by and by.
		want []string
	}{
		"image-nonsense": {container: `image: "::not an image::"`,
			want: []string{"InvalidImageName", "::not an image::", "write it as [registry[:port]/]name[:tag]"}},
		"registry-unreadable": {container: `image: "127.0.0.1:9/x:1", imagePullPolicy: Always`,
			want: []string{"BackOff", "127.0.0.1:9", "connection refused", "image load"}},
		"no-config-map": {container: good + `, volumeMounts: [{name: v, mountPath: /v}]`, pod: `volumes: [{name: v, configMap: {name: absent}}]`,
			want: []string{"CreateContainerConfigError", `configmap "absent" not found`, "create it in namespace"}},
		"no-secret": {container: good + `, envFrom: [{secretRef: {name: absent}}]`,
			want: []string{"CreateContainerConfigError", `secret "absent" not found`, "create it in namespace"}},
		"no-directory": {container: good + `, volumeMounts: [{name: v, mountPath: /v}]`, pod: `volumes: [{name: v, hostPath: {path: /no/such/directory, type: Directory}}]`,
			want: []string{"CreateContainerConfigError", "volume v", "/no/such/directory", "DirectoryOrCreate"}},
		"probe-to-nowhere": {container: good + `, ports: [{containerPort: 8080}], readinessProbe: {periodSeconds: 1, tcpSocket: {port: 9999}}`,
			want: []string{"Unhealthy", "Readiness probe failed", ":9999", "connection refused", "no process in the pod listens at the port"}},
		"probe-without-port": {container: good + `, readinessProbe: {periodSeconds: 1, httpGet: {path: /, port: web}}`,
			want: []string{"Unhealthy", `has no port "web"`, "want the name of one of its ports"}},
		"host-port-taken": {container: good + `, ports: [{containerPort: 8080, hostPort: 18099}]`, pod: `nodeSelector: {kubernetes.io/hostname: node-1}`,
			want: []string{"FailedScheduling", "didn't have free ports for the requested pod ports", "Unschedulable"}},
	}
	holder := "apiVersion: v1\nkind: Pod\nmetadata: {name: port-holder, labels: {app: holder}}\nspec: {terminationGracePeriodSeconds: 1, nodeSelector: {kubernetes.io/hostname: node-1}, containers: [{name: main, " +
		good + ", ports: [{containerPort: 8080, hostPort: 18099}]}]}\n"
	p.apply(t, holder)
	p.do(t, "wait", "pod/port-holder", "--for", "condition=Ready", "--timeout", "60s")
	for name, test := range tests {
		spec := "terminationGracePeriodSeconds: 1, containers: [{name: main, " + test.container + "}]"
		if test.pod != "" {
			spec += ", " + test.pod
		}
		p.apply(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: "+name+"}\nspec: {"+spec+"}\n")
	}
	// Command why shows the port and the node.
	eventually(t, "why names the port", waitLimit, func() error {
		if text := p.do(t, "why", "host-port-taken"); !strings.Contains(text, "host port 18099/TCP is taken") {
			return fmt.Errorf("%s", text)
		}
		return nil
	})
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			eventually(t, "describe tells why and what to do", waitLimit, func() error {
				text := p.do(t, "describe", "pod", name)
				for _, want := range test.want {
					if !strings.Contains(text, want) {
						return fmt.Errorf("it lacks %q:\n%s", want, text)
					}
				}
				return nil
			})
		})
	}
	// A clash within one pod is refused with the place of both.
	o := p.pipe(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: clash}\nspec:\n  containers:\n    - {name: a, "+good+", ports: [{containerPort: 8080, hostPort: 18100}]}\n"+
		"    - {name: b, "+good+", ports: [{containerPort: 8081, hostPort: 18100}]}\n", "apply", "-f", "-")
	if o.code == 0 || !strings.Contains(o.stderr, "spec.containers[1].ports[0].hostPort") || !strings.Contains(o.stderr, "18100") {
		t.Errorf("two host ports of one number in a pod: %s", o)
	}
}
