package conformance_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/prototext"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/cliconfig"
	"github.com/xebec-project/xebec/internal/client"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
)

// stage is a namespace of a lab, and the tools of a user who works in it.
type stage struct {
	api       *client.Client
	binary    string // of the command line
	config    string
	namespace string
}

// xebec runs the command line in the stage's namespace and returns what it printed.
func (s *stage) xebec(ctx context.Context, input string, args ...string) (string, error) {
	// A command that hangs is a finding of its own.
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.binary, append([]string{"-n", s.namespace}, args...)...)
	cmd.Env, cmd.Stdin, cmd.WaitDelay = append(os.Environ(), cliconfig.EnvPath+"="+s.config), strings.NewReader(input), time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("xebec %s: %w\n%s%s", strings.Join(args, " "), err, &out, &errs)
	}
	return out.String(), nil
}

// check is something that must come true soon after the manifests are applied. It says what is
// wrong until it is true.
type check struct {
	what string
	once bool // done, not awaited
	is   func(ctx context.Context, s *stage) error
}

// await repeats the check until it holds.
func (c check) await(ctx context.Context, s *stage) error {
	var last error
	looked := time.Now()
	for {
		err := c.is(ctx, s)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil && last != nil {
			// What was cut off says less than what went before.
			return fmt.Errorf("%s: %w", c.what, last)
		}
		last = err
		if time.Since(looked) > 2*time.Second {
			looked = time.Now()
			if err := s.unpulled(ctx); err != nil {
				return err
			}
		}
		if c.once {
			return fmt.Errorf("%s: %w", c.what, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", c.what, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// errUnpulled says that a node asked a registry for an image although it was loaded into the node.
var errUnpulled = errors.New("the node asks a registry for an image that was loaded, and there is none")

// unpulled tells whether a pod of the namespace waits for a registry.
func (s *stage) unpulled(ctx context.Context) error {
	pods, _, err := client.List[*corev1.Pod](ctx, s.api, client.ListOptions{Namespace: s.namespace})
	if err != nil {
		return nil // the checks go on to say what is wrong
	}
	for _, p := range pods {
		for _, c := range slices.Concat(p.GetStatus().GetInitContainerStatuses(), p.GetStatus().GetContainerStatuses()) {
			w := c.GetState().GetWaiting()
			if strings.HasSuffix(w.GetReason(), "ImagePull") || w.GetReason() == "ImagePullBackOff" {
				return fmt.Errorf("%s: %w: %s", p.GetMetadata().GetName(), errUnpulled, w.GetMessage())
			}
		}
	}
	return nil
}

// onPod checks a pod.
func onPod(what, name string, is func(p *corev1.Pod) bool) check {
	return check{what: name + " " + what, is: func(ctx context.Context, s *stage) error {
		p, err := client.Get[*corev1.Pod](ctx, s.api, s.namespace, name)
		if err != nil {
			return err
		}
		if !is(p) {
			return fmt.Errorf("not so: node %s, %s", p.GetSpec().GetNodeName(), brief(p))
		}
		return nil
	}}
}

func brief(p *corev1.Pod) string {
	return fmt.Sprintf("%.1200s", prototext.MarshalOptions{}.Format(p.GetStatus()))
}

func phase(name string, phases ...string) check {
	return onPod("is "+strings.Join(phases, " or "), name, func(p *corev1.Pod) bool { return slices.Contains(phases, p.GetStatus().GetPhase()) })
}

func condition(p *corev1.Pod, kind string) *corev1.PodCondition {
	for _, c := range p.GetStatus().GetConditions() {
		if c.GetType() == kind {
			return c
		}
	}
	return nil
}

func ready(name string) check {
	return onPod("is ready", name, func(p *corev1.Pod) bool { return condition(p, "Ready").GetStatus() == "True" })
}

func unschedulable(name, message string) check {
	return onPod("is unschedulable for "+message, name, func(p *corev1.Pod) bool {
		c := condition(p, "PodScheduled")
		return c.GetStatus() == "False" && c.GetReason() == "Unschedulable" && strings.Contains(c.GetMessage(), message)
	})
}

func onNode(name, node string) check {
	return onPod("is on "+node, name, func(p *corev1.Pod) bool { return p.GetSpec().GetNodeName() == node })
}

func qos(name, class string) check {
	return onPod("is "+class, name, func(p *corev1.Pod) bool { return p.GetStatus().GetQosClass() == class })
}

// onContainer checks that the status of one container of a pod, or of any when none is named, is as
// wanted.
func onContainer(what, pod, container string, is func(*corev1.ContainerStatus) bool) check {
	return onPod(what, pod, func(p *corev1.Pod) bool {
		return slices.ContainsFunc(p.GetStatus().GetContainerStatuses(), func(c *corev1.ContainerStatus) bool {
			return (container == "" || c.GetName() == container) && is(c)
		})
	})
}

func waiting(pod, reason string) check {
	return onContainer("waits with "+reason, pod, "", func(c *corev1.ContainerStatus) bool { return c.GetState().GetWaiting().GetReason() == reason })
}

func restarted(pod string) check {
	return onContainer("was restarted", pod, "", func(c *corev1.ContainerStatus) bool { return c.GetRestartCount() > 0 })
}

func terminated(pod, container string, code int32) check {
	return onContainer(fmt.Sprintf("container %s ended with %d", container, code), pod, container, func(c *corev1.ContainerStatus) bool {
		return c.GetState().GetTerminated() != nil && c.GetState().GetTerminated().GetExitCode() == code
	})
}

// ended checks how a container ended before it was restarted.
func ended(what, pod string, is func(*corev1.ContainerStateTerminated) bool) check {
	return onContainer(what, pod, "", func(c *corev1.ContainerStatus) bool {
		return is(c.GetLastState().GetTerminated()) || is(c.GetState().GetTerminated())
	})
}

func outOfMemory(pod string) check {
	return ended("was killed for its memory", pod, func(t *corev1.ContainerStateTerminated) bool {
		return t.GetReason() == "OOMKilled" && t.GetExitCode() == 137
	})
}

func terminationMessage(pod, message string) check {
	return ended("left the message "+message, pod, func(t *corev1.ContainerStateTerminated) bool { return strings.Contains(t.GetMessage(), message) })
}

// status checks the column of that name.
func status(pod string, any ...string) check {
	return cli1("status of "+pod, func(out string) bool {
		return slices.ContainsFunc(any, func(want string) bool { return strings.Contains(out, want) })
	}, "get", "pod", pod)
}

// cli1 runs a command until its output is as wanted.
func cli1(what string, is func(string) bool, args ...string) check {
	return check{what: what, is: func(ctx context.Context, s *stage) error {
		out, err := s.xebec(ctx, "", args...)
		if err != nil {
			return err
		}
		if !is(out) {
			return fmt.Errorf("it printed %.1000q", out)
		}
		return nil
	}}
}

func cli(want string, args ...string) check { return printed([]string{want}, args...) }

func printed(want []string, args ...string) check {
	return cli1(fmt.Sprintf("%q in %s", want, strings.Join(args, " ")), func(out string) bool {
		return !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(out, w) })
	}, args...)
}

func logs(pod string, want ...string) check { return printed(want, "logs", pod) }

func logsNothingWrong(pod string) check {
	return cli1("log of "+pod, func(out string) bool { return !strings.Contains(out, "rror") }, "logs", pod)
}

// runs executes a shell script in a container, the first when none is named.
func runs(pod, container, script string, want ...string) check {
	args := []string{"exec", pod}
	if container != "" {
		args = append(args, "-c", container)
	}
	return printed(want, append(args, "--", "sh", "-c", script)...)
}

// calls calls a URL from the pod caller.
func calls(url, want string) check {
	return printed([]string{want}, "exec", "caller", "--", "/usr/sbin/wget", "-T", "3", "-qO-", url)
}

// callsPod calls a pod by its address from the pod caller.
func callsPod(name string, port int, want string) check {
	return check{what: "call " + name, is: func(ctx context.Context, s *stage) error {
		p, err := client.Get[*corev1.Pod](ctx, s.api, s.namespace, name)
		if err != nil {
			return err
		}
		return calls(fmt.Sprintf("http://%s:%d", p.GetStatus().GetPodIp(), port), want).is(ctx, s)
	}}
}

func event(object, reason, message string) check {
	return check{what: object + " has an event " + reason, is: func(ctx context.Context, s *stage) error {
		list, _, err := client.List[*corev1.Event](ctx, s.api, client.ListOptions{Namespace: s.namespace})
		if err != nil {
			return err
		}
		var seen []string
		for _, e := range list {
			if e.GetInvolvedObject().GetName() != object {
				continue
			}
			if e.GetReason() == reason && strings.Contains(strings.ToLower(e.GetMessage()), strings.ToLower(message)) {
				return nil
			}
			seen = append(seen, e.GetReason()+": "+e.GetMessage())
		}
		return fmt.Errorf("its events are %q", seen)
	}}
}

func available(name string, replicas int32) check {
	return check{what: fmt.Sprintf("%s has %d available", name, replicas), is: func(ctx context.Context, s *stage) error {
		d, err := client.Get[*appsv1.Deployment](ctx, s.api, s.namespace, name)
		if err != nil {
			return err
		}
		st := d.GetStatus()
		if st.GetObservedGeneration() < d.GetMetadata().GetGeneration() || st.GetUpdatedReplicas() != replicas || st.GetAvailableReplicas() != replicas || st.GetReplicas() != replicas {
			return fmt.Errorf("its status is %s", prototext.MarshalOptions{}.Format(st))
		}
		return nil
	}}
}

func replicaSet(name string, replicas int32) check {
	return check{what: fmt.Sprintf("%s has %d available", name, replicas), is: func(ctx context.Context, s *stage) error {
		r, err := client.Get[*appsv1.ReplicaSet](ctx, s.api, s.namespace, name)
		if err != nil {
			return err
		}
		if r.GetStatus().GetAvailableReplicas() != replicas {
			return fmt.Errorf("its status is %s", prototext.MarshalOptions{}.Format(r.GetStatus()))
		}
		return nil
	}}
}

// count checks how many pods have a label and are not about to go.
func count(selector string, pods int) check {
	return check{what: fmt.Sprintf("%d pods are %s", pods, selector), is: func(ctx context.Context, s *stage) error {
		list, _, err := client.List[*corev1.Pod](ctx, s.api, client.ListOptions{Namespace: s.namespace, LabelSelector: selector})
		if err != nil {
			return err
		}
		live := slices.DeleteFunc(list, func(p *corev1.Pod) bool { return p.GetMetadata().GetDeletionTimestamp() != nil })
		if len(live) != pods {
			return fmt.Errorf("there are %d", len(live))
		}
		return nil
	}}
}

func endpoints(service string, ready int) check {
	return check{what: fmt.Sprintf("%s has %d endpoints", service, ready), is: func(ctx context.Context, s *stage) error {
		list, _, err := client.List[*discoveryv1.EndpointSlice](ctx, s.api, client.ListOptions{Namespace: s.namespace, LabelSelector: "kubernetes.io/service-name=" + service})
		if err != nil {
			return err
		}
		n := 0
		for _, slice := range list {
			n += len(slice.GetEndpoints())
		}
		if n != ready {
			return fmt.Errorf("it has %d", n)
		}
		return nil
	}}
}

// families checks that a service has an address of each family, in that order.
func families(service string, want ...string) check {
	return check{what: service + " has addresses of " + strings.Join(want, " and "), is: func(ctx context.Context, s *stage) error {
		svc, err := client.Get[*corev1.Service](ctx, s.api, s.namespace, service)
		if err != nil {
			return err
		}
		if spec := svc.GetSpec(); len(spec.GetClusterIps()) != len(want) || !slices.Equal(spec.GetIpFamilies(), want) {
			return fmt.Errorf("its spec is %s", prototext.MarshalOptions{}.Format(spec))
		}
		return nil
	}}
}

// answers calls a service by each of its addresses from the pod caller.
func answers(service string) check {
	return check{what: service + " is called by each of its addresses", is: func(ctx context.Context, s *stage) error {
		svc, err := client.Get[*corev1.Service](ctx, s.api, s.namespace, service)
		if err != nil {
			return err
		}
		for _, address := range svc.GetSpec().GetClusterIps() {
			if err := calls("http://"+net.JoinHostPort(address, "80"), "Welcome to nginx").is(ctx, s); err != nil {
				return err
			}
		}
		return nil
	}}
}

// labelled labels every node.
func labelled(label string) check {
	return check{what: "label nodes", once: true, is: func(ctx context.Context, s *stage) error {
		_, err := s.xebec(ctx, "", "label", "nodes", "--all", "--overwrite", label)
		return err
	}}
}

// deletes deletes a pod in an orderly way, which must not take as long as its grace period.
func deletes(pod string) check {
	return check{what: "delete " + pod, once: true, is: func(ctx context.Context, s *stage) error {
		began := time.Now()
		if _, err := s.xebec(ctx, "", "delete", "pod", pod); err != nil {
			return err
		}
		if took := time.Since(began); took > 15*time.Second {
			return fmt.Errorf("it took %s", took)
		}
		_, err := client.Get[*corev1.Pod](ctx, s.api, s.namespace, pod)
		if !apierr.IsNotFound(err) {
			return fmt.Errorf("it is still there: %v", err)
		}
		return nil
	}}
}

// deletesOwner deletes an object, whose pods must go with it.
func deletesOwner(object, selector string) check {
	return check{what: "delete " + object, once: true, is: func(ctx context.Context, s *stage) error {
		if _, err := s.xebec(ctx, "", "delete", object); err != nil {
			return err
		}
		return count(selector, 0).await(ctx, s)
	}}
}

// located is the path of a trial's file in the corpus at dir.
func located(dir, file string) string {
	if strings.HasPrefix(file, "podinfo/") {
		return filepath.Join(dir, file)
	}
	return filepath.Join(dir, "kubernetes-website", file)
}

// apply applies files of the corpus as they are, in their order.
func (s *stage) apply(ctx context.Context, dir string, files []string) error {
	for _, file := range files {
		if _, err := s.xebec(ctx, "", "apply", "-f", located(dir, file)); err != nil {
			return err
		}
	}
	return nil
}

// clear deletes the namespace with all that is in it. Of default it deletes what the trial made.
func (s *stage) clear(ctx context.Context, dir string, files []string) error {
	if s.namespace != "default" && !strings.HasPrefix(s.namespace, trialPrefix) {
		return nil // the manifests of a page share it
	}
	if s.namespace == "default" {
		var errs []error
		for _, file := range files {
			_, err := s.xebec(ctx, "", "delete", "--wait=false", "-f", located(dir, file))
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
	_, err := client.Delete[*corev1.Namespace](ctx, s.api, "", s.namespace)
	return err
}
