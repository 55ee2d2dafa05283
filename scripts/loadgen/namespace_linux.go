package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// dialIn dials in a network namespace that 'ip netns' made.
func dialIn(ctx context.Context, namespace, address string) (net.Conn, error) {
	type dialled struct {
		conn net.Conn
		err  error
	}
	result := make(chan dialled, 1)
	go func() {
		// The thread ends with the goroutine, as it stays locked: nobody else gets it.
		runtime.LockOSThread()
		var d dialled
		d.conn, d.err = dialThere(ctx, namespace, address)
		result <- d
	}()
	d := <-result
	return d.conn, d.err
}

func dialThere(ctx context.Context, namespace, address string) (net.Conn, error) {
	there, err := os.Open(filepath.Join("/run/netns", namespace))
	if err != nil {
		return nil, err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, os.NewSyscallError("setns", err)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}
