//go:build unix

package main

import (
	"context"
	"syscall"
)

func (e *element) stop(context.Context) error { return e.process.Signal(syscall.SIGSTOP) }
