// Package logs holds the command logs.
package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/terminal"
	"github.com/xebec-project/xebec/cli/watch"
	"github.com/xebec-project/xebec/internal/apierr"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// Options say which logs are printed, and which part of them.
type Options struct {
	Container     string
	allContainers bool
	follow        bool
	Tail          int64
	since         time.Duration
	sinceTime     string
	previous      bool
	timestamps    bool
	prefix        bool
	labels        string
	MaxParallel   int
}

// Command returns the command logs.
func Command(s *session.Session) *cobra.Command {
	var o Options
	cmd := &cobra.Command{
		Use:   "logs POD | KIND/NAME | -l SELECTOR [CONTAINER]",
		Short: "Print the logs of containers",
		Example: "  xebec logs web-0\n" +
			"  xebec logs -f --tail=20 deployment/web\n" +
			"  xebec logs web-0 -c sidecar --previous\n" +
			"  xebec logs -l app=web --since=10m --prefix",
		Args:              cobra.MaximumNArgs(2),
		ValidArgsFunction: resolve.CompleteOf(s, "pods"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 && o.Container == "" {
				o.Container, args = args[1], args[:1]
			}
			if !cmd.Flags().Changed("tail") && o.labels != "" {
				// As with kubectl: with many pods, the end of each is what is wanted.
				o.Tail = 10
			}
			return Print(cmd.Context(), s, args, o)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.Container, "container", "c", "", "container (default: the first of the pod)")
	flags.BoolVar(&o.allContainers, "all-containers", false, "print the logs of all containers")
	flags.BoolVarP(&o.follow, "follow", "f", false, "follow the log")
	flags.Int64Var(&o.Tail, "tail", -1, "number of last lines to print, -1 for all (default 10 with -l)")
	flags.DurationVar(&o.since, "since", 0, "print only lines newer than a duration, such as 10m")
	flags.StringVar(&o.sinceTime, "since-time", "", "print only lines since an RFC 3339 time")
	flags.BoolVarP(&o.previous, "previous", "p", false, "print the log of the previous instance of the container")
	flags.BoolVar(&o.timestamps, "timestamps", false, "print the time of each line")
	flags.BoolVar(&o.prefix, "prefix", false, "prefix each line with its pod and container")
	flags.StringVarP(&o.labels, "selector", "l", "", "label selector of pods")
	flags.IntVar(&o.MaxParallel, "max-log-requests", 20, "maximum number of logs to follow in parallel")
	return cmd
}

// source is one container's log.
type source struct{ namespace, pod, container string }

// Print prints the logs of the pods that args or the label selector choose.
func Print(ctx context.Context, s *session.Session, args []string, o Options) error {
	request, err := o.request(s.Now())
	if err != nil {
		return err
	}
	if (len(args) == 0) == (o.labels == "") {
		return exit.Usagef("exactly one of a pod and -l is required")
	}
	cl := s.Client()
	pods, err := resolve.Pods(ctx, s, cl, args, o.labels)
	if err != nil {
		return err
	}
	var sources []source
	for _, p := range pods {
		containers, err := resolve.Containers(s, p, o.Container, o.allContainers)
		if err != nil {
			return err
		}
		for _, c := range containers {
			sources = append(sources, source{p.GetMetadata().GetNamespace(), p.GetMetadata().GetName(), c})
		}
	}
	if o.follow && len(sources) > o.MaxParallel {
		return fmt.Errorf("too many logs to follow: %d, at most %d; select fewer or raise --max-log-requests", len(sources), o.MaxParallel)
	}
	nodes := nodev1.NewNodeServiceClient(s)
	group, ctx := errgroup.WithContext(ctx)
	if !o.follow {
		group.SetLimit(1)
	}
	var mu sync.Mutex
	for _, src := range sources {
		out := &lineWriter{to: terminal.Raw(s.Out), mu: &mu}
		if o.prefix {
			out.prefix = terminal.OneLine(fmt.Sprintf("[pod/%s/%s]", src.pod, src.container)) + " "
		}
		group.Go(func() error {
			defer out.flush()
			err := stream(ctx, nodes, src, request, out)
			if err != nil && len(sources) > 1 && ctx.Err() == nil && !apierr.IsUnavailable(err) {
				s.PrintError(fmt.Errorf("pod %s, container %s: %w", src.pod, src.container, err))
				return nil
			}
			return err
		})
	}
	return group.Wait()
}

// request is what every log is asked for, but for the target.
func (o Options) request(now time.Time) (*nodev1.LogsRequest, error) {
	r := &nodev1.LogsRequest{Follow: o.follow, Previous: o.previous, Timestamps: o.timestamps}
	if o.Tail < -1 {
		return nil, exit.Usagef("invalid --tail value: want a number of lines, or -1 for all")
	}
	if o.Tail >= 0 {
		r.TailLines = &o.Tail
	}
	switch {
	case o.since < 0:
		return nil, exit.Usagef("invalid --since value: want a positive duration, such as 10m")
	case o.since > 0 && o.sinceTime != "":
		return nil, exit.Usagef("--since and --since-time cannot be combined")
	case o.since > 0:
		r.SinceTime = timestamppb.New(now.Add(-o.since))
	case o.sinceTime != "":
		t, err := time.Parse(time.RFC3339Nano, o.sinceTime)
		if err != nil {
			return nil, exit.Usagef("invalid --since-time value %q: want an RFC 3339 time, such as 2026-01-31T12:00:00Z", o.sinceTime)
		}
		r.SinceTime = timestamppb.New(t)
	}
	return r, nil
}

// stream copies one log. A followed one goes on where it was when the connection was lost: lines
// are asked for with their times, which tell what was printed already.
func stream(ctx context.Context, nodes nodev1.NodeServiceClient, src source, request *nodev1.LogsRequest, out *lineWriter) error {
	r := &nodev1.LogsRequest{
		Target:    &nodev1.Target{Namespace: src.namespace, Pod: src.pod},
		Container: src.container, Follow: request.Follow, TailLines: request.TailLines, SinceTime: request.SinceTime,
		Previous: request.Previous, Timestamps: request.Timestamps || request.Follow,
	}
	out.strip = request.Follow && !request.Timestamps
	for wait := watch.MinRetry; ; wait = min(2*wait, watch.MaxRetry) {
		before := out.last
		err := receiveLog(ctx, nodes, r, out)
		if err == nil || !request.Follow || out.last.IsZero() || !apierr.IsUnavailable(err) {
			return err
		}
		if out.last.After(before) {
			wait = watch.MinRetry
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
	// last is the time of the latest line, when lines have times; lines up to printed are not printed
	// again.
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
