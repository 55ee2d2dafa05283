//go:build !linux

package main

import (
	"context"
	"errors"
	"net"
)

func bare(c net.Conn) (net.Conn, error) { return c, nil }

func watched([]link) bool { return false }

func watch(context.Context, []*pace) error { return errors.ErrUnsupported }
