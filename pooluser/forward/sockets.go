package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// Listen listens at HOST:PORT, tcp://HOST:PORT or unix:PATH. A client whose host
// has vanished is found within dead; 0 leaves that to the system. A socket that
// nobody listens at any more is replaced, as the one of a killed process is.
func Listen(ctx context.Context, address string, dead time.Duration) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return listenUnix(ctx, strings.TrimPrefix(path, "//"))
	}
	cfg := net.ListenConfig{KeepAliveConfig: keepAlive(dead), Control: control(dead)}
	return cfg.Listen(ctx, "tcp", strings.TrimPrefix(address, "tcp://"))
}

// CheckAddress tells what is wrong with an address for Listen.
func CheckAddress(address string) error {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if strings.TrimPrefix(path, "//") == "" {
			return fmt.Errorf("%q has no path", address)
		}
		return nil
	}
	_, port, err := net.SplitHostPort(strings.TrimPrefix(address, "tcp://"))
	switch {
	case err != nil:
	case port == "":
		err = fmt.Errorf("%q has no port", address)
	default:
		_, err = net.LookupPort("tcp", port)
	}
	return err
}

func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	var cfg net.ListenConfig
	l, err := cfg.Listen(ctx, "unix", path)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return l, err
	}
	conn, dialErr := new(net.Dialer).DialContext(ctx, "unix", path)
	if dialErr == nil {
		_ = conn.Close() // it was to see whether anybody is there
		return nil, err
	}
	if !errors.Is(dialErr, syscall.ECONNREFUSED) {
		return nil, err
	}
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	return cfg.Listen(ctx, "unix", path)
}

// DialStream returns what connects to TCP elements, for pooluser's Config. An
// element whose host has vanished is found within dead, whether something is on
// its way to it or not; 0 leaves that to the system.
func DialStream(dead time.Duration) func(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{KeepAliveConfig: keepAlive(dead), Control: control(dead)}
	return dialer.DialContext
}

// keepAlive lets a connection that is silent for two thirds of dead be probed. The
// kernel counts in seconds.
func keepAlive(dead time.Duration) net.KeepAliveConfig {
	if dead <= 0 {
		return net.KeepAliveConfig{Enable: true}
	}
	third := max(dead/3, time.Second)
	return net.KeepAliveConfig{Enable: true, Idle: third, Interval: third, Count: 2}
}

// control sets what the net package has no option for.
func control(dead time.Duration) func(network, address string, raw syscall.RawConn) error {
	if dead <= 0 {
		return nil
	}
	return func(_, _ string, raw syscall.RawConn) error {
		var err error
		if rawErr := raw.Control(func(fd uintptr) { err = setUserTimeout(int(fd), dead) }); rawErr != nil {
			return rawErr
		}
		return err
	}
}
