// Package image holds the commands that load images into nodes.
package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/xebec-project/xebec/cli/command"
	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/terminal"
	"github.com/xebec-project/xebec/internal/client"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// Command returns the command image.
func Command(s *session.Session) *cobra.Command {
	return command.Family("image", "Load images into nodes", loadCommand(s))
}

func loadCommand(s *session.Session) *cobra.Command {
	var nodes []string
	cmd := &cobra.Command{
		Use:   "load ARCHIVE...",
		Short: "Load image archives into nodes",
		Long: "Load image archives, as 'docker save' or OCI tools write them, into containerd on nodes, without a registry. All nodes\n" +
			"are loaded in parallel.",
		Example: "  xebec image load bin/images/*.tar\n" +
			"  xebec image load web.tar --nodes node-1,node-2",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return loadImages(cmd.Context(), s, args, nodes) },
	}
	cmd.Flags().StringSliceVar(&nodes, "nodes", nil, "nodes to load (default: all)")
	_ = cmd.RegisterFlagCompletionFunc("nodes", resolve.CompleteOf(s, "nodes"))
	return cmd
}

func loadImages(ctx context.Context, s *session.Session, archives, nodes []string) error {
	var size int64
	for _, a := range archives {
		info, err := os.Stat(a)
		if err == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%s is not a regular file", a)
		}
		if err != nil {
			return exit.FileError("image archive", err)
		}
		size += info.Size()
	}
	cl := s.Client()
	if len(nodes) == 0 {
		all, _, err := client.List[*corev1.Node](ctx, cl, client.ListOptions{})
		if err != nil {
			return err
		}
		for _, n := range all {
			nodes = append(nodes, n.GetMetadata().GetName())
		}
		if len(nodes) == 0 {
			return errors.New("no nodes registered: 'xebec get nodes' lists them")
		}
	}
	progress := newProgress(s, "Loading", size*int64(len(nodes)))
	service := nodev1.NewNodeServiceClient(s)
	type result struct {
		node    string
		archive string
		images  []string
		err     error
	}
	var mu sync.Mutex
	var results []result
	var group errgroup.Group
	for _, node := range nodes {
		group.Go(func() error {
			for _, archive := range archives {
				images, err := sendArchive(ctx, service, node, archive, progress)
				mu.Lock()
				results = append(results, result{node, archive, images, err})
				mu.Unlock()
			}
			return nil
		})
	}
	_ = group.Wait()
	progress.end()
	failed := false
	for _, r := range results {
		if r.err != nil {
			failed = true
			s.PrintError(fmt.Errorf("load %s into %s: %w", r.archive, r.node, r.err))
		}
	}
	// One line per image, with the nodes that have it now.
	has := map[string][]string{}
	var images []string
	for _, r := range results {
		for _, i := range r.images {
			if has[i] == nil {
				images = append(images, i)
			}
			has[i] = append(has[i], r.node)
		}
	}
	slices.Sort(images)
	for _, i := range images {
		slices.Sort(has[i])
		s.Printf("image/%s loaded into %s\n", i, strings.Join(has[i], ", "))
	}
	if failed {
		return exit.Some
	}
	return nil
}

// sendArchive loads one archive into one node and returns the names of the images.
func sendArchive(ctx context.Context, service nodev1.NodeServiceClient, node, archive string, progress *progress) ([]string, error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, exit.FileError("open", err)
	}
	defer f.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := service.ImportImage(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&nodev1.ImportImageRequest{Target: &nodev1.Target{Node: node}})
	for err == nil {
		// A sent message may still be encoded after Send: every one has memory of its own.
		buffer := make([]byte, session.Chunk)
		n, readErr := io.ReadFull(f, buffer)
		if n > 0 {
			err = stream.Send(&nodev1.ImportImageRequest{Data: buffer[:n]})
			progress.add(int64(n))
		}
		if errors.Is(readErr, io.EOF) || errors.Is(readErr, io.ErrUnexpectedEOF) {
			break
		}
		if readErr != nil {
			return nil, fmt.Errorf("read %s: %w", filepath.Base(archive), readErr)
		}
	}
	// When a send fails with EOF the node has ended the call: its reason is what comes back.
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	resp, err := stream.CloseAndRecv()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range resp.GetImages() {
		names = append(names, i.GetName())
	}
	return names, nil
}

// progress tells on standard error how far something long is: on a terminal in a line that is
// written over.
type progress struct {
	s     *session.Session
	what  string
	total int64
	done  atomic.Int64
	stop  chan struct{}
	ended sync.WaitGroup
}

// newProgress starts to show progress, if standard error is a terminal.
func newProgress(s *session.Session, what string, total int64) *progress {
	p := &progress{s: s, what: what, total: total, stop: make(chan struct{})}
	if _, ok := terminal.Descriptor(s.Err); ok {
		p.ended.Go(p.run)
	}
	return p
}

func (p *progress) add(n int64) { p.done.Add(n) }

func (p *progress) run() {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-p.stop:
			fmt.Fprint(terminal.Raw(p.s.Err), "\r\x1b[K")
			return
		case <-ticker.C:
			fmt.Fprintf(
				terminal.Raw(p.s.Err),
				"\r\x1b[K%s… %s of %s",
				terminal.OneLine(p.what),
				printer.Bytes(p.done.Load()),
				printer.Bytes(p.total),
			)
		}
	}
}

func (p *progress) end() {
	close(p.stop)
	p.ended.Wait()
}
