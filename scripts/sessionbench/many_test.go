package main

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"rserpool/asap/transport"
	"rserpool/poolelement"
	"rserpool/poolelement/cookie"
	"rserpool/registrar"
)

// TestSessionsCostLittleAndLeaveNothing is 'sessionbench many' with all in one process.
func TestSessionsCostLittleAndLeaveNothing(t *testing.T) {
	defer goleak.VerifyNone(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	free, err := transport.ParseEndpoint("tcp://127.0.0.1:0", transport.TCP, 0)
	if err != nil {
		t.Fatal(err)
	}
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	r, err := registrar.New(registrar.Config{Networks: networks(), ASAP: []transport.Endpoint{free}, Log: silent})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(ctx); err != nil {
		t.Fatal(err)
	}
	at := free
	at.Port = r.Addrs()[0].Addrs[0].Port()
	server, err := poolelement.NewServer(poolelement.ServeConfig{
		Element: poolelement.Config{Handle: manyPool, Registrars: []transport.Endpoint{at}, Networks: networks()},
		Listen:  []transport.Endpoint{free},
		Cookies: cookie.Raw{},
	}, poolelement.HandlerFunc(echo))
	if err != nil {
		t.Fatal(err)
	}
	serving, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- server.Run(serving) }()
	resolver, err := newResolver(at)
	if err != nil {
		t.Fatal(err)
	}
	if err := registered(ctx, resolver); err != nil {
		t.Fatal(err)
	}
	const n = 300
	usage := func() (usage, error) { return used(int(server.Stats().Sessions)) }
	if _, err := count(ctx, resolver, n, 0, usage); err != nil { // makes what is shared
		t.Fatal(err)
	}
	c, err := count(ctx, resolver, n, 500*time.Millisecond, usage)
	if err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + c.String())
	// One goroutine at the user, and two at the element.
	if each := float64(c.user[1].Goroutines-c.user[0].Goroutines) / n; each > 3.05 {
		t.Errorf("%.2f goroutines per session at both ends", each)
	}
	if each := float64(int64(c.user[1].Heap)-int64(c.user[0].Heap)) / n; each > 40<<10 {
		t.Errorf("%.0f octets on the heap per session at both ends", each)
	}
	if left := int64(c.user[2].Heap) - int64(c.user[0].Heap); left > n<<9 {
		t.Errorf("%d octets more on the heap than before the sessions", left)
	}
	resolver.Stop()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := r.Stop(ctx); err != nil {
		t.Error(err)
	}
}
