//go:build !unix

package main

import (
	"context"
	"errors"
)

func (e *element) stop(context.Context) error { return errors.ErrUnsupported }
