// Package cp holds the command cp, which copies files from and to containers.
package cp

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	slash "path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/terminal"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// Command returns the command cp.
func Command(s *session.Session) *cobra.Command {
	var container string
	cmd := &cobra.Command{
		Use:   "cp SOURCE DESTINATION",
		Short: "Copy files between containers and this machine",
		Long: "Copy a file or a directory from a container to this machine, or from this machine to a container. A path in a container\n" +
			"is written as POD:PATH. The container must have tar. A copy from a container writes below the destination only:\n" +
			"devices, and links that lead outside, are skipped with a warning.",
		Example: "  xebec cp web-0:/var/log/web.log .\n" +
			"  xebec cp ./site web-0:/srv/www -c nginx",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return cp(cmd.Context(), s, args[0], args[1], container)
		},
	}
	cmd.Flags().StringVarP(&container, "container", "c", "", "container (default: the first of the pod)")
	return cmd
}

// inPod splits POD:PATH. A path of this machine that has a colon begins with a slash or a dot.
func inPod(arg string) (pod, file string, ok bool) {
	pod, file, ok = strings.Cut(arg, ":")
	if !ok || pod == "" || file == "" || pod[0] == '/' || pod[0] == '.' {
		return "", arg, false
	}
	return pod, file, true
}

func cp(ctx context.Context, s *session.Session, from, to, container string) error {
	fromPod, source, download := inPod(from)
	toPod, destination, upload := inPod(to)
	if download == upload {
		return exit.Usagef("exactly one of SOURCE and DESTINATION must be POD:PATH")
	}
	r, err := newRemote(ctx, s, fromPod+toPod, container)
	if err != nil {
		return err
	}
	if download {
		return r.download(ctx, slash.Clean(source), destination)
	}
	return r.upload(ctx, source, slash.Clean(destination))
}

// remote is a container to run commands in.
type remote struct {
	service   nodev1.NodeServiceClient
	target    *nodev1.Target
	container string
	warn      func(format string, args ...any)
}

func newRemote(ctx context.Context, s *session.Session, pod, container string) (*remote, error) {
	p, name, err := resolve.Container(ctx, s, []string{pod}, container)
	if err != nil {
		return nil, err
	}
	target := &nodev1.Target{Namespace: p.GetMetadata().GetNamespace(), Pod: p.GetMetadata().GetName()}
	warn := func(format string, args ...any) { s.Labelf(terminal.Yellow, "Warning:", format, args...) }
	return &remote{service: nodev1.NewNodeServiceClient(s), target: target, container: name, warn: warn}, nil
}

// run runs a command to its end. A command that fails is an error that holds what it complained of.
func (r *remote) run(ctx context.Context, in io.Reader, out io.Writer, command ...string) (code int32, complaint string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := r.service.Exec(ctx)
	if err != nil {
		return 0, "", err
	}
	start := &nodev1.ExecStart{Target: r.target, Container: r.container, Command: command, Stdin: in != nil}
	if err := stream.Send(&nodev1.ExecRequest{Request: &nodev1.ExecRequest_Start{Start: start}}); err != nil && !errors.Is(err, io.EOF) {
		return 0, "", err
	}
	broken := make(chan error, 1)
	if in != nil {
		go func() {
			input := writer(func(p []byte) error {
				return stream.Send(&nodev1.ExecRequest{Request: &nodev1.ExecRequest_Stdin{Stdin: p}})
			})
			if _, err := io.CopyBuffer(struct{ io.Writer }{input}, struct{ io.Reader }{in}, make([]byte, session.Chunk)); err != nil &&
				!errors.Is(err, io.EOF) {
				broken <- err
				cancel()
				return
			}
			_ = stream.Send(&nodev1.ExecRequest{Request: &nodev1.ExecRequest_CloseStdin{CloseStdin: true}})
		}()
	}
	var said bytes.Buffer
	for {
		resp, err := stream.Recv()
		if err != nil {
			select {
			case err = <-broken:
			default:
			}
			return 0, said.String(), err
		}
		switch m := resp.GetResponse().(type) {
		case *nodev1.ExecResponse_Stdout:
			if _, err := out.Write(m.Stdout); err != nil {
				return 0, said.String(), err
			}
		case *nodev1.ExecResponse_Stderr:
			if said.Len() < session.Chunk {
				said.Write(m.Stderr)
			}
		case *nodev1.ExecResponse_ExitCode:
			return m.ExitCode, strings.TrimSpace(said.String()), nil
		}
	}
}

// writer is a function that takes what is written.
type writer func([]byte) error

func (w writer) Write(p []byte) (int, error) {
	if err := w(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (r *remote) tar(ctx context.Context, in io.Reader, out io.Writer, args ...string) error {
	code, complaint, err := r.run(ctx, in, out, append([]string{"tar"}, args...)...)
	switch {
	case err != nil:
		return err
	case code != 0:
		return fmt.Errorf("tar in container %s of pod %s failed with exit code %d: %s", r.container, r.target.GetPod(), code, complaint)
	}
	return nil
}

// download copies source into the directory destination, or as it when that is none.
func (r *remote) download(ctx context.Context, source, destination string) error {
	base := slash.Base(source)
	if base == "/" || base == ".." || base == "." {
		return exit.Usagef("invalid source %q: want a path that ends in the name of a file or directory", source)
	}
	name, dir := filepath.Base(destination), filepath.Dir(destination)
	switch st, err := os.Stat(destination); {
	case err == nil && st.IsDir():
		name, dir = base, destination
	case strings.HasSuffix(destination, "/"):
		return fmt.Errorf("directory %s does not exist", destination)
	case err == nil && !st.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file: 'xebec exec %s -- cat %s' prints a file", destination, r.target.GetPod(), source)
	case err == nil:
		// A link of the user's own that leads to a file means that file.
		if destination, err = filepath.EvalSymlinks(destination); err != nil {
			return exit.FileError("destination", err)
		}
		name, dir = filepath.Base(destination), filepath.Dir(destination)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return exit.FileError("directory", err)
	}
	defer root.Close()
	reader, pipe := io.Pipe()
	done := make(chan error, 1)
	go func() {
		u := &unpacker{dir: root, base: base, name: name, warn: r.warn}
		err := u.unpack(reader)
		if err == nil || errors.Is(err, errNothingSent) {
			// An archive is padded; what follows its end must not hold up the sender, which may also have a
			// better reason.
			_, broken := io.Copy(io.Discard, reader)
			err = errors.Join(err, broken)
		}
		reader.CloseWithError(err)
		done <- err
	}()
	err = r.tar(ctx, nil, pipe, "cf", "-", "-C", slash.Dir(source), "--", base)
	pipe.CloseWithError(err)
	unpacked := <-done
	if err != nil {
		// When the writing failed, that is the reason why the sender did.
		return err
	}
	return unpacked
}

// upload copies source into the directory destination of the container, or as it when that is none.
func (r *remote) upload(ctx context.Context, source, destination string) error {
	if _, err := os.Lstat(source); err != nil {
		return exit.FileError("source", err)
	}
	code, _, err := r.run(ctx, nil, io.Discard, "test", "-d", destination)
	if err != nil {
		return err
	}
	dir, name := slash.Dir(destination), slash.Base(destination)
	if code == 0 {
		absolute, err := filepath.Abs(source)
		if err != nil {
			return err
		}
		dir, name = destination, filepath.Base(absolute)
	}
	reader, pipe := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := pack(source, name, pipe)
		pipe.CloseWithError(err)
		done <- err
	}()
	err = r.tar(ctx, reader, io.Discard, "xmf", "-", "-C", dir)
	reader.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	packed := <-done
	if err != nil {
		return err
	}
	return packed
}

// pack writes a file, or a directory with all that is in it, as an archive, under a name.
func pack(source, name string, to io.Writer) error {
	archive := tar.NewWriter(to)
	err := filepath.WalkDir(source, func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		link := ""
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			if link, err = os.Readlink(file); err != nil {
				return err
			}
		case !info.IsDir() && !info.Mode().IsRegular():
			return nil
		}
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		below, err := filepath.Rel(source, file)
		if err != nil {
			return err
		}
		h.Name = slash.Join(name, filepath.ToSlash(below))
		// Whose the files are on this machine says nothing in a container.
		h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
		if err := archive.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
			return err
		}
		f, err := os.Open(file) //nolint:gosec // the user's own files, opened as the user
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(archive, f)
		return err
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", source, err)
	}
	return archive.Close()
}
