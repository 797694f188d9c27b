package session

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/terminal"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/manifest"
	"github.com/xebec-project/xebec/internal/rpc"
)

// report prints an error and returns the exit code that it stands for.
func (s *Session) report(command *cobra.Command, err error) int {
	switch coded, ok := errors.AsType[*exit.Error](err); {
	case err == nil:
		return exit.OK
	case ok && coded.Err == nil:
		return coded.Code
	case ok:
		s.PrintError(err)
		return coded.Code
	}
	if _, ok := errors.AsType[*exit.UsageError](err); ok || strings.HasPrefix(err.Error(), "unknown command ") {
		s.PrintError(err)
		s.Notef("See '%s --help'.", command.CommandPath())
		return exit.Usage
	}
	if errors.Is(err, context.Canceled) || (apierr.Code(err) == codes.Canceled && command.Context().Err() != nil) {
		return exit.Interrupted
	}
	s.PrintError(err)
	if s.Unreachable(err) {
		return exit.Unreachable
	}
	return exit.Failed
}

// PrintError prints an error as people read it, with what to do about it where that is known.
func (s *Session) PrintError(err error) {
	const prefix = "error:"
	if all, ok := errors.AsType[manifest.Errors](err); ok {
		s.printManifestErrors(all)
		return
	}
	if s.Unreachable(err) {
		s.Labelf(terminal.Red, prefix, "cannot reach %s: %s", s.destination(), Cause(err))
		s.Notef("  Is it up? A lab says so by 'sudo xebec lab status' and comes up by 'sudo xebec lab up'.")
		s.Notef("  Contexts are listed by 'xebec config get-contexts' and chosen by --context or 'xebec config use-context'.")
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
		s.Labelf(terminal.Red, prefix, "%s", text)
		return
	}
	s.Labelf(terminal.Red, prefix, "%s is invalid:", object)
	for _, v := range violations {
		s.Notef("  %s", v)
	}
}

// Unreachable tells a connection that failed here from an error that a server sent.
func (s *Session) Unreachable(err error) bool {
	return apierr.IsUnavailable(err) && apierr.Info(err) == nil && s.conn != nil
}

// Cause is the innermost sentence of what gRPC says about a connection.
func Cause(err error) string {
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

// maxPlaces is how many places an error names of those where it was found.
const maxPlaces = 5

// printManifestErrors prints what is wrong with manifests: each kind that there is not once, with all places.
func (s *Session) printManifestErrors(errs manifest.Errors) {
	var order []string
	places := map[string][]string{}
	texts := map[string]string{}
	for _, e := range errs {
		text := e.Error()
		if fe, ok := errors.AsType[*codec.FieldError](e.Err); ok && fe.Kind != "" {
			text = fe.Kind
			texts[text] = fe.Error()
		}
		if _, known := places[text]; !known {
			order = append(order, text)
		}
		places[text] = append(places[text], fmt.Sprintf("%s:%d", e.Source, e.Line))
	}
	for _, key := range order {
		text, isKind := texts[key]
		if !isKind {
			s.Labelf(terminal.Red, "error:", "%s", key)
			continue
		}
		at := places[key]
		also := ""
		if len(at) > 1 {
			also = " (also at " + strings.Join(at[1:min(len(at), maxPlaces)], ", ")
			if more := len(at) - maxPlaces; more > 0 {
				also += fmt.Sprintf(" and %d more", more)
			}
			also += ")"
		}
		s.Labelf(terminal.Red, "error:", "%s: %s%s", at[0], text, also)
	}
}
