package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/cliconfig"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/lab"
	"github.com/xebec-project/xebec/lab/control"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// ship is a lab that runs, and an administrator's connection to it.
type ship struct {
	*lab.Lab
	products *products
	config   string // the command line's configuration that has the lab's context
	conn     *grpc.ClientConn
	client   *client.Client
	loaded   sync.Once // the images
}

// launch brings a lab up, with the sample images on its nodes, that ends with the tests at the
// latest.
func launch(options lab.Options) (*ship, error) {
	p, err := built()
	if err != nil {
		return nil, err
	}
	options.Name = randomName()
	options.StateDir = filepath.Join(p.dir, options.Name)
	options.BinDir, options.Ephemeral = p.bin, true
	options.ContextFile = filepath.Join(p.dir, options.Name+".config")
	s := &ship{products: p, config: options.ContextFile}
	afterAll(func() error { return lab.Down(context.Background(), lab.DownOptions{Name: options.Name, Purge: true}) })
	ctx, cancel := context.WithTimeout(context.Background(), upLimit)
	defer cancel()
	began := time.Now()
	if s.Lab, err = lab.Up(ctx, options); err != nil {
		if s.Lab != nil {
			err = fmt.Errorf("%w\n%s", err, s.tails())
		}
		return nil, err
	}
	fmt.Printf("lab %s: %d masters and %d nodes up in %.1f s\n", options.Name, options.Masters, options.Nodes, time.Since(began).Seconds())
	if s.conn, err = s.Dial(); err != nil {
		return nil, err
	}
	afterAll(s.conn.Close)
	s.client = client.New(s.conn, client.WithFieldManager("e2e"))
	return s, nil
}

// sharedShip waits for the lab that most tests share until no other uses it, and returns it. It
// prints the lab's logs when the test fails.
func sharedShip(t *testing.T) *ship {
	t.Helper()
	needRoot(t)
	sharedLab.join(t)
	s, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	s.showLogsOnFailure(t)
	return s
}

// ownShip brings up a lab for this test alone, which has joined the queue ownLabs.
func ownShip(t *testing.T, options lab.Options) *ship {
	t.Helper()
	needRoot(t)
	s, err := launch(options)
	if err != nil {
		t.Fatal(err)
	}
	s.showLogsOnFailure(t)
	t.Cleanup(func() {
		if err := lab.Down(context.Background(), lab.DownOptions{Name: s.Spec.Name, Purge: true}); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *ship) showLogsOnFailure(t *testing.T) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.tails())
		}
	})
}

// tails returns the ends of all logs of the lab, of which only warnings and errors count.
func (s *ship) tails() string {
	var out strings.Builder
	files, _ := filepath.Glob(filepath.Join(s.Spec.StateDir, "logs", "*", "*.log"))
	for _, file := range append(files, s.Spec.SupervisorLog()) {
		data, err := os.ReadFile(file)
		if err != nil {
			fmt.Fprintf(&out, "%s: %v\n", file, err)
			continue
		}
		lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(data)), "\n"), func(line string) bool {
			return line == "" || strings.Contains(line, `"level":"info"`) || strings.Contains(line, `"level":"debug"`) || strings.Contains(line, " level=info ")
		})
		name := strings.TrimPrefix(file, s.Spec.StateDir+"/logs/")
		for _, line := range lines[max(0, len(lines)-6):] {
			fmt.Fprintf(&out, "%s: %.400s\n", name, line)
		}
	}
	return out.String()
}

// process returns the state of a process of the lab, such as "master-1/etcd".
func (s *ship) process(t *testing.T, target string) control.Process {
	t.Helper()
	hostName, name, _ := strings.Cut(target, "/")
	for _, p := range s.host(t, hostName).Processes {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("no process %s", target)
	return control.Process{}
}

func (s *ship) host(t *testing.T, name string) control.Host {
	t.Helper()
	status, err := s.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range status.Hosts {
		if h.Name == name {
			return h
		}
	}
	t.Fatalf("no host %s", name)
	return control.Host{}
}

// dialAs connects to the gateways with another certificate than the administrator's.
func (s *ship) dialAs(t *testing.T, ca []byte, pair *pki.Pair) *grpc.ClientConn {
	t.Helper()
	source, err := pki.NewMemorySource(ca, pair)
	if err != nil {
		t.Fatal(err)
	}
	var addresses []string
	for _, e := range s.Spec.LoadEndpoints() {
		addresses = append(addresses, e.String())
	}
	conn, err := rpc.Dial(rpc.SchemeStatic+":///"+strings.Join(addresses, ","), rpc.ClientConfig{TLS: source})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// authority is the lab's own, for certificates that it really signed.
func (s *ship) authority(t *testing.T) *pki.CA {
	t.Helper()
	file := func(name string) string { return filepath.Join(s.Spec.StateDir, "pki", name) }
	ca, err := pki.LoadCA(file("ca.crt"), file("ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// person is a user at a terminal, with a configuration and a namespace of their own.
type person struct {
	*ship
	namespace string
	file      string
}

// person makes a namespace for the test, and a configuration whose context is in it. The namespace
// is deleted after the test, with all that is in it.
func (s *ship) person(t *testing.T) *person {
	t.Helper()
	p := &person{ship: s, namespace: "t-" + strings.ToLower(randomName()), file: filepath.Join(t.TempDir(), "config")}
	s.configure(t, p.file, p.namespace)
	if _, err := client.Create(t.Context(), s.client, &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: p.namespace}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
		defer cancel()
		// What is not gone in time is a finding of its own.
		if _, err := client.Delete[*corev1.Namespace](ctx, s.client, "", p.namespace); err != nil {
			t.Errorf("delete namespace %s: %v", p.namespace, err)
			return
		}
		if err := awaitGone[*corev1.Namespace](ctx, s.client, "", p.namespace); err != nil {
			t.Errorf("namespace %s: %v", p.namespace, err)
		}
	})
	return p
}

// configure writes a configuration whose only context is the lab's, with another namespace.
func (s *ship) configure(t *testing.T, file, namespace string) {
	t.Helper()
	config, err := cliconfig.Load(s.config)
	if err != nil {
		t.Fatal(err)
	}
	current, err := config.Current()
	if err != nil {
		t.Fatal(err)
	}
	current.Namespace = namespace
	if err := config.Save(file); err != nil {
		t.Fatal(err)
	}
}

// inDefault is a person who works in the namespace default.
func (s *ship) inDefault() *person { return &person{ship: s, namespace: "default", file: s.config} }

// loadImages loads version 1 of the sample images onto all nodes, once.
func (s *ship) loadImages(t *testing.T) {
	t.Helper()
	s.loaded.Do(func() {
		for _, image := range []string{"echo", "client"} {
			s.inDefault().do(t, "image", "load", filepath.Join(s.products.images, image+".tar"))
		}
	})
}

// sample returns one of the repository's sample manifests.
func sample(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(sources(t), "samples", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// reaches calls a URL from the pod client and says what is wrong unless the answer holds want.
func (p *person) reaches(t *testing.T, url, want string) error {
	t.Helper()
	o := p.try(t, "exec", "client", "--", "/client", "get", url, "--timeout", "3s")
	if o.code != 0 || !strings.Contains(o.stdout, want) {
		return fmt.Errorf("%s: %s", url, o)
	}
	return nil
}

// outcome is what became of a command.
type outcome struct {
	stdout, stderr string
	code           int
}

func (o outcome) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", o.code, o.stdout, o.stderr)
}

// start prepares the command line for this person.
func (p *person) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.products.bin, "xebec"), args...)
	cmd.Env = append(os.Environ(), cliconfig.EnvPath+"="+p.file)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// try runs a command and returns what became of it.
func (p *person) try(t *testing.T, args ...string) outcome {
	t.Helper()
	return p.pipe(t, "", args...)
}

// pipe runs a command with this text as its standard input.
func (p *person) pipe(t *testing.T, input string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	cmd := p.command(ctx, args...)
	cmd.Stdin = strings.NewReader(input)
	return run(t, cmd)
}

// run runs a command to its end.
func run(t *testing.T, cmd *exec.Cmd) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatalf("%s: %v", strings.Join(cmd.Args, " "), err)
	} else if ok && exit.ExitCode() < 0 {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, &stdout, &stderr)
	}
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// do runs a command that must succeed and returns its output.
func (p *person) do(t *testing.T, args ...string) string {
	t.Helper()
	o := p.try(t, args...)
	if o.code != 0 {
		t.Fatalf("xebec %s: %s", strings.Join(args, " "), o)
	}
	return o.stdout
}

// apply applies a manifest.
func (p *person) apply(t *testing.T, manifest string) {
	t.Helper()
	if o := p.pipe(t, manifest, "apply", "-f", "-"); o.code != 0 {
		t.Fatalf("apply: %s\n%s", o, manifest)
	}
}

// tailing runs a command that goes on, and gives its output line by line until the test ends.
func (p *person) tailing(t *testing.T, args ...string) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	cmd := p.command(ctx, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1024)
	go func() {
		defer close(lines)
		scanLines(out, lines)
		_ = cmd.Wait()
	}()
	return lines
}

func scanLines(from io.Reader, to chan<- string) {
	var pending []byte
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		pending = append(pending, buf[:n]...)
		for {
			line, rest, found := bytes.Cut(pending, []byte("\n"))
			if !found {
				break
			}
			to <- string(line)
			pending = rest
		}
		if err != nil {
			return
		}
	}
}

// mustBe fails the test unless the error has this reason.
func mustBe(t *testing.T, what string, err error, reason string) {
	t.Helper()
	if got := apierr.Reason(err); got != reason {
		t.Errorf("%s: reason %q, want %q (%v)", what, got, reason, err)
	}
}
