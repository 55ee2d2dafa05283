package cli

import (
	"context"
	"errors"
	"fmt"
)

// ExitCode is the exit status of a program of the suite.
type ExitCode int

// The exit codes. They are part of the programs' interface.
const (
	OK          ExitCode = 0   // done
	Failed      ExitCode = 1   // anything without a code of its own
	Usage       ExitCode = 2   // command line or configuration
	Unreachable ExitCode = 3   // no registrar answers
	NotFound    ExitCode = 4   // no such pool or element
	Degraded    ExitCode = 5   // works, but not as it should
	TimedOut    ExitCode = 6   // not done within the time allowed
	Interrupted ExitCode = 130 // ended by SIGINT or SIGTERM before it was done
)

// String names the code as error output in JSON does.
func (c ExitCode) String() string {
	switch c {
	case OK:
		return "ok"
	case Failed:
		return "failed"
	case Usage:
		return "usage"
	case Unreachable:
		return "unreachable"
	case NotFound:
		return "not-found"
	case Degraded:
		return "degraded"
	case TimedOut:
		return "timed-out"
	case Interrupted:
		return "interrupted"
	}
	return fmt.Sprintf("exit-%d", int(c))
}

// ExitError is an error that says how the program shall exit. A nil Err exits
// without a message, for commands whose output says it all.
type ExitError struct {
	Code ExitCode
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return e.Code.String()
	}
	return e.Err.Error()
}

func (e *ExitError) Unwrap() error { return e.Err }

// Exit gives err an exit code.
func Exit(code ExitCode, err error) error { return &ExitError{Code: code, Err: err} }

// Exitf is Exit with a formatted error.
func Exitf(code ExitCode, format string, args ...any) error {
	return Exit(code, fmt.Errorf(format, args...))
}

// CodeOf returns the exit code for what a command returned: that of the
// outermost ExitError, else one that follows from the error itself.
func CodeOf(err error) ExitCode {
	var exit *ExitError
	switch {
	case err == nil:
		return OK
	case errors.As(err, &exit):
		return exit.Code
	case errors.Is(err, ErrSignal), errors.Is(err, context.Canceled):
		return Interrupted
	case errors.Is(err, context.DeadlineExceeded):
		return TimedOut
	}
	return Failed
}
