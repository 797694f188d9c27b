// Package session is what one run of the command line shares: streams, global flags, and the
// connection to the cluster with its credentials and time limits.
package session

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/terminal"
	"github.com/xebec-project/xebec/internal/cliconfig"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
)

// Streams are the standard streams of a command.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Session is what all commands share: streams, global flags, and the way to the cluster.
type Session struct {
	// In is what the command reads. Out and Err are what people read: raw(Out) is for programs.
	In       io.Reader
	Out, Err *terminal.Screen

	context   string
	Namespace string
	Endpoints []string
	token     string
	Timeout   time.Duration
	verbosity int

	// Kinds are the kinds that the program was compiled with and, once Discovered, those that the
	// cluster serves besides.
	Kinds      *scheme.Scheme
	Discovered bool

	// dial makes a connection to a context's gateways; now is the time. Tests replace them.
	Dial func(*cliconfig.Context, ...grpc.DialOption) (*grpc.ClientConn, error)
	Now  func() time.Time

	// warned are the warnings that were printed, partial tells that the objects of some manifests were
	// left out.
	warned  map[string]bool
	partial bool

	resolved *cliconfig.Context

	mu   sync.Mutex // of conn
	conn *grpc.ClientConn
}

// New returns the session of one command line.
func New(streams Streams) *Session {
	return &Session{
		In:     streams.In,
		Out:    terminal.NewScreen(streams.Out),
		Err:    terminal.NewScreen(streams.Err),
		Kinds:  kinds.NewScheme(),
		Dial:   dial,
		Now:    time.Now,
		warned: map[string]bool{},
	}
}

// Finish prints the error of a command, if it has one, closes the connection and returns the exit
// code.
func (s *Session) Finish(command *cobra.Command, err error) int {
	code := s.report(command, err)
	if code == exit.OK && s.partial {
		code = exit.Failed
	}
	if s.conn != nil {
		s.conn.Close()
	}
	return code
}

// Flags are those of every command.
func (s *Session) Flags(flags *pflag.FlagSet) {
	flags.StringVar(&s.context, "context", "", "context to use instead of the current one")
	flags.StringVarP(&s.Namespace, "namespace", "n", "", "namespace (default: that of the context)")
	flags.StringSliceVar(&s.Endpoints, "endpoints", nil, "gateways to connect to instead of those of the context, as host:port,...")
	flags.StringSliceVar(&s.Endpoints, "server", nil, "same as --endpoints")
	flags.StringVar(&s.token, "token", "", "service account token to authenticate with instead of the certificate of the context")
	flags.DurationVar(&s.Timeout, "request-timeout", 0, "time limit for one call to the cluster (default 10s)")
	flags.CountVarP(&s.verbosity, "verbose", "v", "print each call to the cluster on standard error")
	_ = flags.MarkHidden("server")
}

// Fail makes the exit code 1 of a command that does the rest of its work.
func (s *Session) Fail() { s.partial = true }

// Printf writes to standard output. Failures, such as a closed pipe, are ignored.
func (s *Session) Printf(format string, args ...any) { fmt.Fprintf(s.Out, format, args...) }

// Notef writes a line to standard error.
func (s *Session) Notef(format string, args ...any) { fmt.Fprintf(s.Err, format+"\n", args...) }

// Labelf writes a line to standard error that begins with a coloured word.
func (s *Session) Labelf(c terminal.Colour, word, format string, args ...any) {
	if terminal.Coloured(s.Err) {
		word = terminal.Paint(c, word)
	}
	fmt.Fprintf(terminal.Raw(s.Err), "%s %s\n", word, terminal.Escape(fmt.Sprintf(format, args...)))
}

// Warn prints what the server says of an object that it stored.
func (s *Session) Warn(about fmt.Stringer, warnings []string) {
	for _, w := range warnings {
		s.WarnOnce(about.String() + ": " + w)
	}
}

// WarnOnce prints a warning, unless it did so before.
func (s *Session) WarnOnce(text string) {
	if !s.warned[text] {
		s.warned[text] = true
		s.Labelf(terminal.Yellow, "Warning:", "%s", text)
	}
}
