package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/manifest"
	"github.com/xebec-project/xebec/internal/rpc"
)

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// exitError ends the program with a code. When err is nil everything has been said already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// timedOut says that what was waited for did not happen.
func timedOut(format string, args ...any) error {
	return &exitError{ExitTimeout, fmt.Errorf("timed out waiting for "+format, args...)}
}

// errSome ends a command that went on after errors, which are printed already.
var errSome error = &exitError{code: ExitError}

// report prints an error and returns the exit code that it stands for.
func (s *shell) report(command *cobra.Command, err error) int {
	switch coded, ok := errors.AsType[*exitError](err); {
	case err == nil:
		return ExitOK
	case ok && coded.err == nil:
		return coded.code
	case ok:
		s.printError(err)
		return coded.code
	}
	if _, ok := errors.AsType[*usageError](err); ok || strings.HasPrefix(err.Error(), "unknown command ") {
		s.printError(err)
		s.notef("See '%s --help'.", command.CommandPath())
		return ExitUsage
	}
	if errors.Is(err, context.Canceled) || (apierr.Code(err) == codes.Canceled && command.Context().Err() != nil) {
		return ExitInterrupted
	}
	s.printError(err)
	if s.unreachable(err) {
		return ExitUnreachable
	}
	return ExitError
}

// printError prints an error as people read it, with what to do about it where that is known.
func (s *shell) printError(err error) {
	const prefix = "error:"
	if all, ok := errors.AsType[manifest.Errors](err); ok {
		s.printManifestErrors(all)
		return
	}
	if s.unreachable(err) {
		s.labelf(red, prefix, "cannot reach %s: %s", s.destination(), connectionCause(err))
		s.notef("  Is it up? A lab says so by 'sudo xebec lab status' and comes up by 'sudo xebec lab up'.")
		s.notef("  Contexts are listed by 'xebec config get-contexts' and chosen by --context or 'xebec config use-context'.")
		return
	}
	text := apierr.Message(err)
	switch apierr.Reason(err) {
	case apierr.ReasonApplyConflict:
		text += "\n  --force-conflicts takes the fields over."
	case apierr.ReasonTimeout:
		text += "\n  Whether a write happened is not known; --request-timeout allows more time."
	case rpc.ReasonBadToken:
		text += "\n  'xebec create token SERVICEACCOUNT' makes another."
	case rpc.ReasonExpired:
		if strings.Contains(text, "token") {
			text += "\n  'xebec create token SERVICEACCOUNT' makes another."
		}
	case apierr.ReasonUnauthenticated:
		text += fmt.Sprintf("\n  Check the certificate that context %q names: xebec config view", s.contextName())
	}
	violations := apierr.Violations(err)
	object, _, ok := strings.Cut(text, " is invalid: ")
	if !ok || len(violations) < 2 || !apierr.IsInvalid(err) {
		s.labelf(red, prefix, "%s", text)
		return
	}
	s.labelf(red, prefix, "%s is invalid:", object)
	for _, v := range violations {
		s.notef("  %s", v)
	}
}

// unreachable tells a connection that failed here from an error that a server sent.
func (s *shell) unreachable(err error) bool {
	return apierr.IsUnavailable(err) && apierr.Info(err) == nil && s.conn != nil
}

// connectionCause is the innermost sentence of what gRPC says about a connection.
func connectionCause(err error) string {
	text := apierr.Message(err)
	for _, known := range []struct{ mark, says string }{
		{"connection refused", "connection refused"},
		{"no route to host", "no route to host"},
		{"i/o timeout", "no answer"},
		{"connection reset by peer", "the connection was reset: something listens there, and no gateway is behind it"},
		{"no such host", "the host name is not known"},
		{"certificate has expired", "a certificate has expired"},
		{"signed by unknown authority", "the server's certificate is signed by another authority: this context belongs to another cluster, or to an older one at the same address"},
		{"first record does not look like a TLS handshake", "what listens there speaks plain text: nothing was sent to it, for gateways speak TLS only"},
		{"leads to another service", "the address leads to another service"},
	} {
		if strings.Contains(text, known.mark) {
			return known.says
		}
	}
	if cause, ok := strings.CutPrefix(text, "last connection error: "); ok {
		return cause
	}
	return text
}

// fileError makes what the file system says shorter by what the reader knows.
func fileError(what string, err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s %s: %w", what, p.Path, p.Err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
