package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kind"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// defaultContainer is the annotation by which a pod names the container that people mean when they name none.
const defaultContainer = "kubectl.kubernetes.io/default-container"

type logsOptions struct {
	container     string
	allContainers bool
	follow        bool
	tail          int64
	since         time.Duration
	sinceTime     string
	previous      bool
	timestamps    bool
	prefix        bool
	labels        string
	maxParallel   int
}

func (s *shell) logsCommand() *cobra.Command {
	var o logsOptions
	cmd := &cobra.Command{
		Use:   "logs POD | KIND/NAME | -l SELECTOR [CONTAINER]",
		Short: "Print the logs of containers",
		Example: "  xebec logs web-0\n" +
			"  xebec logs -f --tail=20 deployment/web\n" +
			"  xebec logs web-0 -c sidecar --previous\n" +
			"  xebec logs -l app=web --since=10m --prefix",
		Args:              cobra.MaximumNArgs(2),
		ValidArgsFunction: s.completeOf("pods"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 && o.container == "" {
				o.container, args = args[1], args[:1]
			}
			if !cmd.Flags().Changed("tail") && o.labels != "" {
				// As with kubectl: with many pods, the end of each is what is wanted.
				o.tail = 10
			}
			return s.logs(cmd.Context(), args, o)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.container, "container", "c", "", "container (default the pod's first)")
	flags.BoolVar(&o.allContainers, "all-containers", false, "all containers of the pods")
	flags.BoolVarP(&o.follow, "follow", "f", false, "go on with new lines")
	flags.Int64Var(&o.tail, "tail", -1, "last lines to print, -1 for all (default 10 with -l)")
	flags.DurationVar(&o.since, "since", 0, "only lines younger than this, such as 10m")
	flags.StringVar(&o.sinceTime, "since-time", "", "only lines from this time on, RFC 3339")
	flags.BoolVarP(&o.previous, "previous", "p", false, "the log of the container's previous instance")
	flags.BoolVar(&o.timestamps, "timestamps", false, "put each line's time before it")
	flags.BoolVar(&o.prefix, "prefix", false, "put the pod and the container before each line")
	flags.StringVarP(&o.labels, "selector", "l", "", "pods by label selector")
	flags.IntVar(&o.maxParallel, "max-log-requests", 20, "most logs to follow at once")
	return cmd
}

// source is one container's log.
type source struct{ namespace, pod, container string }

func (s *shell) logs(ctx context.Context, args []string, o logsOptions) error {
	request, err := o.request(s.now())
	if err != nil {
		return err
	}
	if (len(args) == 0) == (o.labels == "") {
		return usagef("name a pod, or select pods with -l: one of the two")
	}
	cl := s.client()
	pods, err := s.podsOf(ctx, cl, args, o.labels)
	if err != nil {
		return err
	}
	var sources []source
	for _, p := range pods {
		containers, err := s.containersOf(p, o.container, o.allContainers)
		if err != nil {
			return err
		}
		for _, c := range containers {
			sources = append(sources, source{p.GetMetadata().GetNamespace(), p.GetMetadata().GetName(), c})
		}
	}
	if o.follow && len(sources) > o.maxParallel {
		return fmt.Errorf("%d logs to follow are more than %d: select fewer, or raise --max-log-requests", len(sources), o.maxParallel)
	}
	nodes := nodev1.NewNodeServiceClient(s)
	group, ctx := errgroup.WithContext(ctx)
	if !o.follow {
		group.SetLimit(1)
	}
	var mu sync.Mutex
	for _, src := range sources {
		out := &lineWriter{to: raw(s.Out), mu: &mu}
		if o.prefix {
			out.prefix = oneLine(fmt.Sprintf("[pod/%s/%s]", src.pod, src.container)) + " "
		}
		group.Go(func() error {
			defer out.flush()
			err := s.stream(ctx, nodes, src, request, out)
			if err != nil && len(sources) > 1 && ctx.Err() == nil && !apierr.IsUnavailable(err) {
				s.printError(fmt.Errorf("pod %s, container %s: %w", src.pod, src.container, err))
				return nil
			}
			return err
		})
	}
	return group.Wait()
}

// request is what every log is asked for, but for the target.
func (o logsOptions) request(now time.Time) (*nodev1.LogsRequest, error) {
	r := &nodev1.LogsRequest{Follow: o.follow, Previous: o.previous, Timestamps: o.timestamps}
	if o.tail < -1 {
		return nil, usagef("--tail is a number of lines, or -1 for all")
	}
	if o.tail >= 0 {
		r.TailLines = &o.tail
	}
	switch {
	case o.since < 0:
		return nil, usagef("--since is how long ago, such as 10m, and not negative")
	case o.since > 0 && o.sinceTime != "":
		return nil, usagef("--since and --since-time say the same: leave one of them out")
	case o.since > 0:
		r.SinceTime = timestamppb.New(now.Add(-o.since))
	case o.sinceTime != "":
		t, err := time.Parse(time.RFC3339Nano, o.sinceTime)
		if err != nil {
			return nil, usagef("--since-time %q is no time such as 2026-01-31T12:00:00Z", o.sinceTime)
		}
		r.SinceTime = timestamppb.New(t)
	}
	return r, nil
}

// podsOf finds the pods that a command means: by name, by their owner, or by labels. An owner stands for one of its
// pods, as with kubectl: the one that is most likely to have something to say.
func (s *shell) podsOf(ctx context.Context, cl *client.Client, args []string, labels string) ([]*corev1.Pod, error) {
	namespace, err := s.defaultNamespace()
	if err != nil {
		return nil, err
	}
	if labels != "" {
		pods, _, err := client.List[*corev1.Pod](ctx, cl, client.ListOptions{Namespace: namespace, LabelSelector: labels})
		if err == nil && len(pods) == 0 {
			err = fmt.Errorf("no pods match %q in namespace %s", labels, namespace)
		}
		return pods, err
	}
	pod, err := s.podOf(ctx, cl, args, namespace)
	if err != nil {
		return nil, err
	}
	return []*corev1.Pod{pod}, nil
}

// podOf finds the one pod that NAME or KIND/NAME means.
func (s *shell) podOf(ctx context.Context, cl *client.Client, args []string, namespace string) (*corev1.Pod, error) {
	podKind, _ := kind.ByName("pods")
	r, err := parseOne(args, podKind)
	if err != nil {
		return nil, err
	}
	if r.kind == podKind {
		return client.Get[*corev1.Pod](ctx, cl, namespace, r.name)
	}
	obj, err := client.GetKind(ctx, cl, r.kind, namespace, r.name)
	if err != nil {
		return nil, err
	}
	selector, err := podSelector(obj)
	if err != nil {
		return nil, err
	}
	pods, _, err := client.List[*corev1.Pod](ctx, cl, client.ListOptions{Namespace: namespace, LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	if len(pods) == 0 {
		return nil, fmt.Errorf("%s has no pods; 'xebec describe %s' may say why", r, r)
	}
	chosen := slices.MinFunc(pods, comparePods)
	if len(pods) > 1 {
		s.notef("Found %d pods, using pod/%s", len(pods), chosen.GetMetadata().GetName())
	}
	return chosen, nil
}

// comparePods puts those first that run and are ready, then the older ones.
func comparePods(a, b *corev1.Pod) int {
	rank := func(p *corev1.Pod) int {
		switch {
		case kind.IsPodReady(p):
			return 0
		case p.GetStatus().GetPhase() == kind.PodRunning:
			return 1
		case p.GetSpec().GetNodeName() != "":
			return 2
		}
		return 3
	}
	if d := rank(a) - rank(b); d != 0 {
		return d
	}
	return a.GetMetadata().GetCreationTimestamp().AsTime().Compare(b.GetMetadata().GetCreationTimestamp().AsTime())
}

// podSelector is how an object finds its pods.
func podSelector(obj kind.Object) (string, error) {
	var selector *metav1.LabelSelector
	switch o := obj.(type) {
	case *appsv1.Deployment:
		selector = o.GetSpec().GetSelector()
	case *appsv1.ReplicaSet:
		selector = o.GetSpec().GetSelector()
	case *corev1.Service:
		if len(o.GetSpec().GetSelector()) == 0 {
			return "", fmt.Errorf("%s has no selector, and so no pods", referenceOf(obj))
		}
		selector = &metav1.LabelSelector{MatchLabels: o.GetSpec().GetSelector()}
	default:
		return "", usagef("a %s has no pods", kind.Of(obj).Singular)
	}
	parsed, err := kind.LabelSelector(selector)
	if err != nil {
		return "", err
	}
	return parsed.String(), nil
}

// containersOf chooses containers of a pod and says so when it had to guess.
func (s *shell) containersOf(p *corev1.Pod, name string, all bool) ([]string, error) {
	var names []string
	for _, c := range slices.Concat(p.GetSpec().GetInitContainers(), p.GetSpec().GetContainers(), kind.EphemeralContainers(p.GetSpec())) {
		names = append(names, c.GetName())
	}
	pod := p.GetMetadata().GetName()
	switch {
	case all:
		return names, nil
	case name != "" && !slices.Contains(names, name):
		return nil, fmt.Errorf("pod %q has no container %q: it has %s", pod, name, strings.Join(names, ", "))
	case name != "":
		return []string{name}, nil
	}
	if name = p.GetMetadata().GetAnnotations()[defaultContainer]; slices.Contains(names, name) {
		return []string{name}, nil
	}
	containers := p.GetSpec().GetContainers()
	if len(containers) == 0 {
		return nil, fmt.Errorf("pod %q has no containers", pod)
	}
	if len(names) > 1 {
		s.notef("Defaulted container %q out of: %s", containers[0].GetName(), strings.Join(names, ", "))
	}
	return []string{containers[0].GetName()}, nil
}

// stream copies one log. A followed one goes on where it was when the connection was lost: lines are asked for with
// their times, which tell what was printed already.
func (s *shell) stream(ctx context.Context, nodes nodev1.NodeServiceClient, src source, request *nodev1.LogsRequest, out *lineWriter) error {
	r := &nodev1.LogsRequest{
		Target:    &nodev1.Target{Namespace: src.namespace, Pod: src.pod},
		Container: src.container, Follow: request.Follow, TailLines: request.TailLines, SinceTime: request.SinceTime,
		Previous: request.Previous, Timestamps: request.Timestamps || request.Follow,
	}
	out.strip = request.Follow && !request.Timestamps
	for wait := minRetry; ; wait = min(2*wait, maxRetry) {
		before := out.last
		err := receiveLog(ctx, nodes, r, out)
		if err == nil || !request.Follow || out.last.IsZero() || !apierr.IsUnavailable(err) {
			return err
		}
		if out.last.After(before) {
			wait = minRetry
		}
		out.drop()
		r.SinceTime, r.TailLines = timestamppb.New(out.last), nil
		out.printed = out.last
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

func receiveLog(ctx context.Context, nodes nodev1.NodeServiceClient, r *nodev1.LogsRequest, out *lineWriter) error {
	stream, err := nodes.Logs(ctx, r)
	if err != nil {
		return err
	}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := out.write(resp.GetData(), r.Follow); err != nil {
			return err
		}
	}
}

// lineWriter writes whole lines of one log among those of others.
type lineWriter struct {
	to     io.Writer
	mu     *sync.Mutex // of to
	prefix string
	// strip removes the time that each line begins with.
	strip bool
	// last is the time of the latest line, when lines have times; lines up to printed are not printed again.
	last, printed time.Time
	rest          []byte
}

// write takes a piece of log; timed says that lines begin with their time.
func (w *lineWriter) write(data []byte, timed bool) error {
	if w.prefix == "" && !timed {
		return w.emit(data)
	}
	w.rest = append(w.rest, data...)
	end := bytes.LastIndexByte(w.rest, '\n') + 1
	var b bytes.Buffer
	for line := range bytes.Lines(w.rest[:end]) {
		w.line(&b, line, timed)
	}
	w.rest = append(w.rest[:0], w.rest[end:]...)
	return w.emit(b.Bytes())
}

func (w *lineWriter) line(b *bytes.Buffer, line []byte, timed bool) {
	if timed {
		stamp, text, ok := bytes.Cut(line, []byte(" "))
		if t, err := time.Parse(time.RFC3339Nano, string(stamp)); ok && err == nil {
			if !t.After(w.printed) {
				return
			}
			w.last = t
			if w.strip {
				line = text
			}
		}
	}
	b.WriteString(w.prefix)
	b.Write(line)
}

func (w *lineWriter) emit(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.to.Write(data)
	return err
}

// drop forgets half a line, which comes again.
func (w *lineWriter) drop() { w.rest = w.rest[:0] }

// flush writes a last line that has no end.
func (w *lineWriter) flush() {
	if len(w.rest) == 0 {
		return
	}
	var b bytes.Buffer
	w.line(&b, w.rest, w.strip)
	_ = w.emit(b.Bytes())
	w.rest = nil
}
