package pooluser_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"testing"
	"testing/quick"

	"rserpool/asap/param"
	"rserpool/pooluser"
)

func TestPoolHandlesAsHosts(t *testing.T) {
	for handle, want := range map[param.PoolHandle]string{
		"EchoPool":  "EchoPool",
		"a-b_c.d":   "a-b_c.d",
		"my pool":   "my~20pool",
		"a:80":      "a~3a80",
		"50~":       "50~7e",
		"\x00\xff/": "~00~ff~2f",
		"[::1]":     "~5b~3a~3a1~5d",
	} {
		if got := pooluser.Host(handle); got != want {
			t.Errorf("Host(%q) is %q, want %q", handle, got, want)
		}
	}
	thereAndBack := func(octets []byte) bool {
		if len(octets) == 0 {
			return true
		}
		handle := param.PoolHandle(octets)
		for _, address := range []string{pooluser.Host(handle), pooluser.Host(handle) + ":6379"} {
			if back, err := pooluser.PoolOf(address); err != nil || back != handle {
				t.Logf("PoolOf(%q) is %q, %v", address, back, err)
				return false
			}
			u, err := url.Parse("http://" + address + "/path")
			if err != nil || u.Host != address {
				t.Logf("%q as URL: %v, %v", address, u, err)
				return false
			}
		}
		return true
	}
	if err := quick.Check(thereAndBack, nil); err != nil {
		t.Error(err)
	}
}

func TestPoolOfAddresses(t *testing.T) {
	for address, want := range map[string]param.PoolHandle{
		"cache:6379": "cache", "cache": "cache", "cache:": "cache", "a:b": "a:b", "a:b:1": "a:b", "my pool": "my pool",
		"a~3A80": "a:80",
	} {
		if got, err := pooluser.PoolOf(address); err != nil || got != want {
			t.Errorf("PoolOf(%q) is %q, %v; want %q", address, got, err, want)
		}
	}
	for _, address := range []string{"", ":80", "a~", "a~3", "a~3:80", "a~zz"} {
		if got, err := pooluser.PoolOf(address); !errors.Is(err, pooluser.ErrHandle) {
			t.Errorf("PoolOf(%q) is %q, %v; want ErrHandle", address, got, err)
		}
	}
}

func TestDialContext(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1, 2)
		l.fail(1, true)
		r := l.user(nil)
		var dial func(ctx context.Context, network, address string) (net.Conn, error) = r.DialContext
		conn, err := dial(t.Context(), "tcp", "pool:6379")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if c, ok := conn.(*pooluser.Conn); !ok || c.Element.ID != 2 {
			t.Errorf("connection %+v, want one to element 2", conn)
		}
		l.wantReports(home, 1)
		for _, bad := range [][2]string{{"udp", "pool:6379"}, {"tcp", ":6379"}, {"tcp", "other:1"}} {
			var failed *net.OpError
			if _, err := dial(t.Context(), bad[0], bad[1]); !errors.As(err, &failed) {
				t.Errorf("%v: error %v, want a net.OpError", bad, err)
			}
		}
		if _, err := dial(t.Context(), "tcp", "other:1"); !errors.Is(err, pooluser.ErrUnknownPool) {
			t.Errorf("error %v, want ErrUnknownPool", err)
		}
	})
}
