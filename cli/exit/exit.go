// Package exit holds the exit codes of commands and the errors that lead to them.
package exit

import (
	"errors"
	"fmt"
	"io/fs"
)

// Exit codes of every command, except that exec, attach, debug and run exit with the code of the
// command they ran.
const (
	// OK: done.
	OK = 0
	// Failed: the cluster refused the request, or an error occurred.
	Failed = 1
	// Usage: the command line is invalid; nothing was done.
	Usage = 2
	// Unreachable: no gateway of the cluster could be reached.
	Unreachable = 3
	// Timeout: the condition that was waited for did not become true in time.
	Timeout = 4
	// Interrupted: interrupted from the terminal.
	Interrupted = 130
)

// UsageError is a command line that makes no sense.
type UsageError struct{ error }

func (e *UsageError) Unwrap() error { return e.error }

// AsUsage makes an error one of usage.
func AsUsage(err error) error { return &UsageError{err} }

// Usagef returns an error of usage.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// Error ends the program with a code. When err is nil everything has been said already.
type Error struct {
	Code int
	Err  error
}

func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// TimedOutf says that what was waited for did not happen.
func TimedOutf(format string, args ...any) error {
	return &Error{Timeout, fmt.Errorf("timed out waiting for "+format, args...)}
}

// Some ends a command that went on after errors, which are printed already.
var Some error = &Error{Code: Failed}

// FileError makes what the file system says shorter by what the reader knows.
func FileError(what string, err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s %s: %w", what, p.Path, p.Err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
