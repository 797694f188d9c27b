package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/lab"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// configMap is a manifest with this name.
func configMap(name string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " + name + "\n"
}

// deployment is a manifest with a few places to go wrong; lines are counted from 1.
func deployment(replacements ...string) string {
	return strings.NewReplacer(replacements...).Replace(`apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2
  selector:
    matchLabels:
      app: web
  template:
    metadata:
      labels:
        app: web
    spec:
      containers:
        - name: web
          image: xebec/echo:1
          ports:
            - containerPort: 8080
`)
}

func service(port string) string {
	return "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  selector: {app: web}\n  ports:\n    - port: " + port + "\n"
}

func TestRefusedManifests(t *testing.T) {
	p := sharedShip(t).person(t)
	tests := map[string]struct {
		manifest string
		want     []string // parts of the message; FILE stands for the manifest's path
	}{
		"unknown field": {deployment("image: xebec", "imagee: xebec"),
			[]string{"FILE:17: spec.template.spec.containers[0].imagee: unknown field", "did you mean image"}},
		"unknown kind":    {"apiVersion: v1\nkind: Pood\nmetadata: {name: a}\n", []string{"FILE:2", "Pood"}},
		"wrong type":      {deployment("replicas: 2", "replicas: two"), []string{"FILE:6: spec.replicas", "two"}},
		"not YAML":        {"apiVersion: v1\nkind: [", []string{"FILE:3: not valid YAML"}},
		"missing name":    {"apiVersion: v1\nkind: ConfigMap\nmetadata: {}\n", []string{"FILE:3: metadata.name: required"}},
		"name too long":   {configMap(strings.Repeat("a", 254)), []string{"FILE:4: ", "metadata.name", "253"}},
		"selector":        {deployment("app: web\n    spec", "app: other\n    spec"), []string{"FILE:12: ", "spec.template.metadata.labels", "selector"}},
		"negative":        {deployment("replicas: 2", "replicas: -1"), []string{"FILE:6: ", "spec.replicas", "-1"}},
		"port 0":          {service("0"), []string{"FILE:8: ", "spec.ports[0].port", "65535"}},
		"port 65536":      {service("65536"), []string{"FILE:8: ", "spec.ports[0].port", "65535"}},
		"container port":  {deployment("8080", "65536"), []string{"FILE:19: ", "spec.template.spec.containers[0].ports[0].containerPort", "65535"}},
		"several at once": {deployment("replicas: 2", "replicas: -1", "8080", "0"), []string{"spec.replicas", "containerPort"}},
		"second document": {configMap("good") + "---\n" + deployment("image:", "imagee:"), []string{"FILE:22:", "imagee"}},
		"bad network": {configMap("before") + "---\n" + netpol("bad", "  podSelector: {}\n  ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]"),
			[]string{"FILE:11: ", "spec.ingress[0].from[0].ipBlock.cidr", "10.0.0.0/33", "must be a valid CIDR value, (e.g. 10.9.8.0/24"}},
		"second at server": {configMap("good-too") + "---\n" + service("0"), []string{"FILE:13: ", "spec.ports[0].port"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "web.yaml")
			if err := os.WriteFile(file, []byte(test.manifest), 0o600); err != nil {
				t.Fatal(err)
			}
			o := p.try(t, "apply", "-f", file)
			if o.code != 1 {
				t.Errorf("%s, want exit code 1", o)
			}
			for _, want := range test.want {
				if want = strings.ReplaceAll(want, "FILE", file); !strings.Contains(o.stderr, want) {
					t.Errorf("the message lacks %q:\n%s", want, o.stderr)
				}
			}
		})
	}
	// Valid objects are applied, unless all must be applied together.
	file := filepath.Join(t.TempDir(), "together.yaml")
	if err := os.WriteFile(file, []byte(configMap("together")+"---\n"+service("0")), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := p.try(t, "apply", "-f", file, "--atomic"); o.code != 1 || !strings.Contains(o.stderr, file+":13: ") || !strings.Contains(o.stderr, "Nothing was written") {
		t.Errorf("with --atomic: %s", o)
	}
	names, _, err := client.List[*corev1.ConfigMap](t.Context(), p.client, client.ListOptions{Namespace: p.namespace})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"good": true, "good-too": true, "before": true, "together": false} {
		if got := slices.ContainsFunc(names, func(c *corev1.ConfigMap) bool { return c.GetMetadata().GetName() == name }); got != want {
			t.Errorf("configmap %s is there: %v, want %v", name, got, want)
		}
	}
}

func TestDuplicateName(t *testing.T) {
	p := sharedShip(t).person(t)
	file := filepath.Join(t.TempDir(), "twice.yaml")
	if err := os.WriteFile(file, []byte(configMap("twice")), 0o600); err != nil {
		t.Fatal(err)
	}
	p.do(t, "create", "-f", file)
	o := p.try(t, "create", "-f", file)
	if o.code != 1 || !strings.Contains(o.stderr, `configmaps "twice" already exists`) {
		t.Errorf("creating it again: %s", o)
	}
}

func TestTooLarge(t *testing.T) {
	p := sharedShip(t).person(t)
	// What a kind bounds itself, and what storage does.
	_, err := client.Create(t.Context(), p.client, &corev1.ConfigMap{
		Metadata: &metav1.ObjectMeta{Namespace: p.namespace, Name: "large"},
		Data:     map[string]string{"data": strings.Repeat("x", 3<<20)},
	})
	mustBe(t, "3 MiB in a ConfigMap", err, apierr.ReasonInvalid)
	if violations := apierr.Violations(err); len(violations) != 1 || violations[0].Field != "data" || !strings.Contains(violations[0].Description, "1048576") {
		t.Errorf("the error does not say what fits: %v", err)
	}
	file := filepath.Join(t.TempDir(), "large.yaml")
	manifest := deployment("- name: web", "- name: web\n          args: ["+strings.Repeat("x", 3<<20)+"]")
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := p.try(t, "apply", "-f", file); o.code != 1 || !strings.Contains(o.stderr, "too large") || !strings.Contains(o.stderr, "at most") {
		t.Errorf("apply: exit code %d, %.500s", o.code, o.stderr)
	}
	if _, err := client.Get[*appsv1.Deployment](t.Context(), p.client, p.namespace, "web"); !apierr.IsNotFound(err) {
		t.Errorf("the deployment is there: %v", err)
	}
	if _, err := client.Get[*corev1.ConfigMap](t.Context(), p.client, p.namespace, "large"); !apierr.IsNotFound(err) {
		t.Errorf("it is there: %v", err)
	}
}

func TestStaleResourceVersion(t *testing.T) {
	p := sharedShip(t).person(t)
	old, err := client.Create(t.Context(), p.client, &corev1.ConfigMap{Metadata: &metav1.ObjectMeta{Namespace: p.namespace, Name: "stale"}})
	if err != nil {
		t.Fatal(err)
	}
	next := client.Clone(old)
	next.Data = map[string]string{"by": "first"}
	if _, err := client.Update(t.Context(), p.client, next); err != nil {
		t.Fatal(err)
	}
	next.Data = map[string]string{"by": "second"}
	_, err = client.Update(t.Context(), p.client, next)
	mustBe(t, "update of an old version", err, apierr.ReasonConflict)
	_, err = client.Delete[*corev1.ConfigMap](t.Context(), p.client, p.namespace, "stale", client.IfResourceVersion(old.GetMetadata().GetResourceVersion()))
	mustBe(t, "delete of an old version", err, apierr.ReasonConflict)
	got, err := client.Get[*corev1.ConfigMap](t.Context(), p.client, p.namespace, "stale")
	if err != nil || got.GetData()["by"] != "first" {
		t.Errorf("it holds %v: %v", got.GetData(), err)
	}
}

func TestCallersWithoutRights(t *testing.T) {
	s := sharedShip(t)
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	foreign, err := pki.CreateCA("foreign", 0)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(ca *pki.CA, request pki.Request) *pki.Pair {
		pair, err := ca.Issue(request)
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	ours := s.authority(t)
	expired := pki.AdminRequest("admin")
	expired.Validity = -time.Minute

	// What TLS refuses is shown without our own client, which would not even try.
	for name, test := range map[string]struct {
		pair *pki.Pair
		want string
	}{
		"expired": {issue(ours, expired), "expired certificate"},
		"foreign": {issue(foreign, pki.AdminRequest("admin")), "unknown certificate authority"},
	} {
		t.Run(name, func(t *testing.T) {
			err := shake(ctx, s.Spec.LoadEndpoints()[0].String(), ours, test.pair)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an alert %q", err, test.want)
			}
		})
	}

	t.Run("none", func(t *testing.T) {
		// One may come with a token instead, so it is the call that is refused.
		trust, err := pki.NewTrustSource(ours.CertPEM())
		if err != nil {
			t.Fatal(err)
		}
		conn, err := rpc.Dial(s.Spec.LoadEndpoints()[0].String(), rpc.ClientConfig{TLS: trust, Options: []grpc.DialOption{grpc.WithDisableHealthCheck()}})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = clusterv1.NewClusterServiceClient(conn).WhoAmI(ctx, &clusterv1.WhoAmIRequest{})
		mustBe(t, "whoami", err, edge.ReasonNoCertificate)
	})

	mallory := s.dialAs(t, ours.CertPEM(), issue(ours, pki.Request{CommonName: "mallory", Client: true}))
	t.Run("unknown authority", func(t *testing.T) {
		_, err := client.Get[*corev1.Namespace](ctx, client.New(mallory), "", "default")
		mustBe(t, "get", err, apierr.ReasonForbidden)
		if err != nil && !strings.Contains(err.Error(), "mallory") {
			t.Errorf("the error does not say who: %v", err)
		}
	})
	t.Run("forged header", func(t *testing.T) {
		for _, conn := range map[string]*grpc.ClientConn{"stranger": mallory, "node": s.dialAs(t, ours.CertPEM(), issue(ours, pki.NodeRequest("node-1")))} {
			forged := metadata.AppendToOutgoingContext(ctx, edge.HeaderUser, "admin", edge.HeaderGroup, pki.GroupMasters)
			who, err := clusterv1.NewClusterServiceClient(conn).WhoAmI(forged, &clusterv1.WhoAmIRequest{})
			if err == nil && who.GetUser() == "admin" {
				t.Error("the gateway took the header for the caller")
			}
			_, err = client.Get[*corev1.Secret](forged, client.New(conn), "default", "forged")
			mustBe(t, "get", err, edge.ReasonForgedIdentity)
			if !apierr.IsForbidden(err) {
				t.Errorf("get: %v", err)
			}
		}
	})
	t.Run("a node beyond its own", func(t *testing.T) {
		node := client.New(s.dialAs(t, ours.CertPEM(), issue(ours, pki.NodeRequest("node-9"))))
		_, err := client.Create(ctx, node, &corev1.ConfigMap{Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "mine"}})
		mustBe(t, "create", err, apierr.ReasonForbidden)
		_, err = client.Patch[*corev1.Node](ctx, node, "", "node-1", []byte(`{"metadata":{"labels":{"mine":"yes"}}}`))
		mustBe(t, "another's node", err, apierr.ReasonForbidden)
	})
}

// shake does a TLS handshake, and reads what comes: with TLS 1.3 a client learns only then that it
// was refused.
func shake(ctx context.Context, address string, authority *pki.CA, pair *pki.Pair) error {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority.CertPEM())
	config := &tls.Config{RootCAs: pool, NextProtos: []string{"h2"}}
	if pair != nil {
		cert, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
		if err != nil {
			return err
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	// A server that accepted us sends its settings first.
	_, err = conn.Read(make([]byte, 1))
	return err
}

func TestRefusedConfiguration(t *testing.T) {
	p, err := built()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"etcd", "apiserver", "auth", "gateway", "scheduler", "workloads", "nodes", "endpoints", "collector", "cloud"} {
		file := filepath.Join(t.TempDir(), name+".yaml")
		key, near := "listne: 10.0.0.1:7000", "listen"
		if name == "etcd" {
			key, near = "dataDri: /var/lib/etcd", "dataDir"
		}
		if err := os.WriteFile(file, []byte("# of "+name+"\n"+key+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		o := run(t, exec.CommandContext(t.Context(), filepath.Join(p.bin, "xebecd"), name, "--config", file))
		if o.code != 1 || !strings.Contains(o.stderr, file+":2: ") || !strings.Contains(o.stderr, "did you mean "+near) {
			t.Errorf("%s: %s", name, o)
		}
	}
	file := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(file, []byte("node: node-1\nadress: 10.0.0.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := run(t, exec.CommandContext(t.Context(), filepath.Join(p.bin, "xebec-agent"), "--config", file))
	if o.code != 1 || !strings.Contains(o.stderr, file+":2: ") || !strings.Contains(o.stderr, "did you mean address") {
		t.Errorf("agent: %s", o)
	}
}

func TestRefusedLabs(t *testing.T) {
	needRoot(t)
	p, err := built()
	if err != nil {
		t.Fatal(err)
	}
	unprivileged := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	for name, test := range map[string]struct {
		args []string
		env  []string
		attr *syscall.SysProcAttr
		code int
		want []string
	}{
		"without root":       {nil, nil, unprivileged, 1, []string{"requires root", "sudo"}},
		"without containerd": {nil, []string{"PATH=/nowhere"}, nil, 1, []string{"containerd is not installed", "runc is not installed", "apt-get install"}},
		"CIDRs overlap": {[]string{"--cluster-cidr", "10.96.0.0/12", "--service-cidr", "10.96.0.0/16"}, nil, nil, 1,
			[]string{"10.96.0.0/16", "overlaps", "10.96.0.0/12", "--cluster-cidr"}},
		"CIDR overlaps lab": {[]string{"--cluster-cidr", "10.88.0.0/15"}, nil, nil, 1, []string{"overlaps", "lab network"}},
		"not a CIDR":        {[]string{"--cluster-cidr", "10.96.0.0"}, nil, nil, 2, []string{"cluster-cidr", "10.244.0.0/16"}},
		"no masters":        {[]string{"--masters", "0"}, nil, nil, 1, []string{"masters: 0"}},
		"bad name":          {[]string{"--name", "My-Lab"}, nil, nil, 1, []string{"My-Lab", "lower-case"}},
		"no programs":       {[]string{"--bin", "/nowhere"}, nil, nil, 1, []string{"xebecd not found in /nowhere", "make build"}},
	} {
		t.Run(name, func(t *testing.T) {
			lab := randomName()
			state := filepath.Join(p.dir, lab)
			args := append([]string{"lab", "up", "--name", lab, "--state-dir", state, "--bin", p.bin, "--ephemeral"}, test.args...)
			cmd := exec.CommandContext(t.Context(), filepath.Join(p.bin, "xebec"), args...)
			cmd.Env = append(os.Environ(), append(test.env, "XEBECCONFIG="+filepath.Join(state, "config"))...)
			cmd.SysProcAttr = test.attr
			cmd.Dir = "/"
			o := run(t, cmd)
			if o.code != test.code {
				t.Errorf("want exit code %d: %s", test.code, o)
			}
			for _, want := range test.want {
				if !strings.Contains(o.stderr, want) {
					t.Errorf("the message lacks %q:\n%s", want, o.stderr)
				}
			}
			if _, err := os.Stat(state); !os.IsNotExist(err) {
				t.Errorf("a lab that was refused left %s (%v)", state, err)
			}
			mustNotBeRegistered(t, lab)
		})
	}
}

func mustNotBeRegistered(t *testing.T, name string) {
	t.Helper()
	names, err := lab.Names()
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(names, name) {
		t.Errorf("lab %s is registered", name)
	}
}

// images that can't run, and what users see.
func TestRefusedImages(t *testing.T) {
	p := sharedShip(t).person(t)
	p.loadImages(t)
	for name, test := range map[string]struct {
		image, policy, command string
		reason                 string
		want                   []string
	}{
		"absent":       {"xebec/absent:1", "Never", "", "ErrImageNeverPull", []string{"image load"}},
		"unreachable":  {"xebec/absent:1", "IfNotPresent", "", "ErrImagePull", []string{"image load"}},
		"no-command":   {"xebec/echo:1", "IfNotPresent", "/no/such/program", "RunContainerError", []string{"/no/such/program"}},
		"invalid-name": {"xebec/Absent:1", "IfNotPresent", "", "InvalidImageName", []string{"xebec/Absent:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			container := fmt.Sprintf("name: main, image: %q, imagePullPolicy: %s", test.image, test.policy)
			if test.command != "" {
				container += fmt.Sprintf(", command: [%s]", test.command)
			}
			manifest := "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + "}\nspec: {terminationGracePeriodSeconds: 1, containers: [{" + container + "}]}\n"
			p.apply(t, manifest)
			waitsFor := func(pod *corev1.Pod) string {
				for _, c := range pod.GetStatus().GetContainerStatuses() {
					for _, reason := range []string{c.GetState().GetWaiting().GetReason(), c.GetState().GetTerminated().GetReason(), c.GetLastState().GetTerminated().GetReason()} {
						if reason == test.reason || test.reason == "RunContainerError" && reason == "StartError" {
							return reason
						}
					}
				}
				return ""
			}
			await(t, p.client, p.namespace, "pod "+name+" in "+test.reason, waitLimit, func(pods []*corev1.Pod) bool {
				return slices.ContainsFunc(pods, func(pod *corev1.Pod) bool { return pod.GetMetadata().GetName() == name && waitsFor(pod) != "" })
			})
			eventually(t, "describe tells what to do", waitLimit, func() error {
				text := p.do(t, "describe", "pod", name)
				for _, want := range append(test.want, "Events") {
					if !strings.Contains(text, want) {
						return fmt.Errorf("it lacks %q:\n%s", want, text)
					}
				}
				return nil
			})
		})
	}
}
