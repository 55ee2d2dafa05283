package registrar

import (
	"context"
	"encoding/hex"
	"io"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/sirupsen/logrus"

	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
)

// overLoopback runs a registrar on real TCP and returns its address.
func overLoopback(t *testing.T, change ...func(*Config)) (*Registrar, string) {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	cfg := Config{
		Networks: transport.NewNetworks(tcp.New()), Log: log,
		ASAP: []transport.Endpoint{{Network: transport.TCP, Hosts: []string{"127.0.0.1"}}},
		ENRP: []transport.Endpoint{},
	}
	for _, f := range change {
		f(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r, r.Addrs()[0].Addrs[0].String()
}

// TestStreamsThatMisbehave shows that over TCP half a message and lost framing
// cost their connection, and say so.
func TestStreamsThatMisbehave(t *testing.T) {
	for _, tt := range []struct {
		name, hex, reason string
		change            func(*Config)
	}{
		{"half a message held open", "0500000c0009", reasonIdle, timers(func(t *Timers) { t.Idle = 3 * time.Second })}, // a slow machine has to get its half in
		{"AMB_02 AMB_14 a length that cannot be", "05000003", reasonFraming, func(*Config) {}},
		{"a message over the limit", "0500ffff", reasonTooLong, func(*Config) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, addr := overLoopback(t, tt.change)
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			data, err := hex.DecodeString(tt.hex)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(data); err != nil {
				t.Fatal(err)
			}
			if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(make([]byte, 1)); err == nil || n != 0 {
				t.Errorf("got %d octets, %v", n, err)
			} else if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Error("connection stays open")
			}
			// After Stop everything is counted.
			if err := r.Stop(context.Background()); err != nil {
				t.Error(err)
			}
			if n := testutil.ToFloat64(r.metrics.closed.WithLabelValues(tt.reason)); n != 1 {
				t.Errorf("%v connections counted as %s", n, tt.reason)
			}
		})
	}
}
