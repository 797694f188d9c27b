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
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/manifest"
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
		s.Labelf(terminal.Red, prefix, "cannot connect to %s: %s", s.destination(), Cause(err))
		s.Notef("  For a lab, 'sudo xebec lab status' shows its state and 'sudo xebec lab up' starts it.")
		s.Notef("  'xebec config get-contexts' lists the contexts; --context or 'xebec config use-context' selects one.")
		return
	}
	text := apierr.Message(err)
	switch apierr.Reason(err) {
	case apierr.ReasonApplyConflict:
		text += "\n  --force-conflicts takes ownership of the fields."
	case apierr.ReasonTimeout:
		text += "\n  The outcome of a write is unknown. --request-timeout sets a longer time limit."
	case edge.ReasonBadToken:
		text += "\n  'xebec create token SERVICEACCOUNT' creates a new token."
	case edge.ReasonExpired:
		if strings.Contains(text, "token") {
			text += "\n  'xebec create token SERVICEACCOUNT' creates a new token."
		}
	case apierr.ReasonUnauthenticated:
		text += fmt.Sprintf("\n  Check the certificate of context %q: xebec config view", s.contextName())
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
		{"i/o timeout", "connection timed out"},
		{"connection reset by peer", "connection reset by peer: a process listens there, but it is not a gateway"},
		{"no such host", "unknown host name"},
		{"certificate has expired", "certificate has expired"},
		{"signed by unknown authority", "server certificate signed by unknown authority: " +
			"the context belongs to another cluster, or to an older one at the same address"},
		{"first record does not look like a TLS handshake", "the server does not use TLS; gateways accept TLS only, so no request was sent"},
		{"leads to another service", "the address belongs to another service"},
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

// printManifestErrors prints what is wrong with manifests: each kind that there is not once, with
// all places.
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
