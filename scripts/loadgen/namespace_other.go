//go:build !linux

package main

import (
	"context"
	"errors"
	"net"
)

func dialIn(context.Context, string, string) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}
