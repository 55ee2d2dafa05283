package poolelement_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
	"rserpool/poolelement"
	"rserpool/poolelement/cookie"
	"rserpool/pooluser"
	"rserpool/registrar"
)

// total is the state of a session: the sum so far, and the last number added.
type total struct{ Sum, Last int }

// totals puts it into octets. The version is counted up when total changes.
var totals = cookie.Codec[total]{Version: 1}

// add serves a session: it adds up what requests of the form "NUMBER VALUE" bring.
func add(ctx context.Context, s *poolelement.Session) error {
	var t total
	for {
		in, err := s.Receive(ctx)
		switch {
		case err == io.EOF:
			return nil // the user has finished
		case err != nil:
			return err // the user sees a failure, and goes on at another element
		case in.Kind == poolelement.Resumed:
			// The user was at another element, and this is where it was.
			if t, err = totals.Decode(in.State); err != nil {
				return err
			}
		case in.Kind == poolelement.Draining:
			return poolelement.ErrHandOver // this server stops, others do not
		case in.Kind == poolelement.Data:
			var number, value int
			if _, err := fmt.Sscan(string(in.Data), &number, &value); err != nil {
				return err
			}
			if number > t.Last { // else the user has sent it again after a failover
				t = total{Sum: t.Sum + value, Last: number}
			}
			state, err := totals.Encode(t)
			if err != nil {
				return err
			}
			// First the state, then the answer: what is answered is never lost.
			if err := s.SaveState(ctx, state); err != nil {
				return err
			}
			if err := s.Send(ctx, transport.Message{Data: fmt.Append(nil, t.Sum)}); err != nil {
				return err
			}
		}
	}
}

// serve runs one element of the pool until ctx ends.
func serve(ctx context.Context, cfg poolelement.Config, secret []byte) error {
	sealer, err := cookie.New(cookie.Config{
		Pool: cfg.Handle,
		Keys: []cookie.Key{{ID: 1, Secret: secret}}, // the same at all elements
	})
	if err != nil {
		return err
	}
	return poolelement.Serve(ctx, poolelement.ServeConfig{
		Element: cfg,
		Listen:  []transport.Endpoint{{Network: transport.TCP, Hosts: []string{"127.0.0.1"}}},
		Cookies: sealer,
		Health: func(ctx context.Context) error {
			return ctx.Err() // look after what the service needs: a disk, a database
		},
	}, poolelement.HandlerFunc(add))
}

// Two elements keep sums for their users. The one that a user is at stops, and the
// other one goes on.
func Example() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	networks := transport.NewNetworks(tcp.New())
	at := startRegistrar(ctx, networks)

	elements := map[param.PEID]*running{}
	for id := param.PEID(1); id <= 2; id++ {
		elements[id] = start(ctx, poolelement.Config{
			Handle: "sums", ID: id, Registrars: []transport.Endpoint{at}, Networks: networks,
		})
	}

	resolver, err := pooluser.New(pooluser.Config{Registrars: []transport.Endpoint{at}, Networks: networks})
	if err != nil {
		log.Fatal(err)
	}
	resolver.Start()
	defer resolver.Stop()
	session, err := resolver.Open(ctx, "sums", pooluser.SessionConfig{Delivery: pooluser.AtLeastOnce})
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	ask := func(request string) {
		if err := session.Send(ctx, pooluser.Message{Data: []byte(request)}); err != nil {
			log.Fatal(err)
		}
		answer, err := session.Receive(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", answer.Data)
	}

	ask("1 10")
	first, _ := session.Element()
	elements[first.ID].stop()
	ask("2 20")
	second, _ := session.Element()
	fmt.Println(first.ID != second.ID)
	session.Close()
	elements[second.ID].stop()
	// Output:
	// 10
	// 30
	// true
}

// running is an element at work.
type running struct {
	cancel context.CancelFunc
	result chan error
}

// start starts an element and waits until it is in the pool.
func start(ctx context.Context, cfg poolelement.Config) *running {
	ctx, cancel := context.WithCancel(ctx)
	r := &running{cancel, make(chan error, 1)}
	registered := make(chan struct{}, 1)
	cfg.OnEvent = func(e poolelement.Event) {
		if e.Type == poolelement.RegistrationAccepted {
			registered <- struct{}{}
		}
	}
	go func() { r.result <- serve(ctx, cfg, []byte("32 octets that only elements know")) }()
	select {
	case <-registered:
	case err := <-r.result:
		log.Fatal(err)
	}
	return r
}

// stop stops it and waits until its sessions have ended or gone on elsewhere.
func (r *running) stop() {
	r.cancel()
	if err := <-r.result; err != nil {
		log.Fatal(err)
	}
}

// startRegistrar starts a registrar and tells where it is.
func startRegistrar(ctx context.Context, networks *transport.Networks) transport.Endpoint {
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	r, err := registrar.New(registrar.Config{
		Networks: networks,
		ASAP:     []transport.Endpoint{{Network: transport.TCP, Hosts: []string{"127.0.0.1"}}},
		Log:      quiet,
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := r.Start(ctx); err != nil {
		log.Fatal(err)
	}
	context.AfterFunc(ctx, func() { r.Stop(context.WithoutCancel(ctx)) })
	addr := r.Addrs()[0].Addrs[0]
	return transport.Endpoint{Network: transport.TCP, Hosts: []string{addr.Addr().String()}, Port: addr.Port()}
}

// A server of a protocol that is a byte stream: here one that sends back what it
// gets. Its users need no framing, and any TCP client will do; without a control
// channel there are no cookies.
func ExampleServeStreams() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	networks := transport.NewNetworks(tcp.New())
	at := startRegistrar(ctx, networks)
	serving, drain := context.WithCancel(ctx)
	registered, done := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		done <- poolelement.ServeStreams(serving, poolelement.ServeConfig{
			Element: poolelement.Config{
				Handle: "echo", Registrars: []transport.Endpoint{at}, Networks: networks,
				Policy: param.Policy{Type: param.LeastUsed}, // by the share of MaxSessions in use
				OnEvent: func(e poolelement.Event) {
					if e.Type == poolelement.RegistrationAccepted {
						registered <- struct{}{}
					}
				},
			},
			Listen:      []transport.Endpoint{{Network: transport.TCP, Hosts: []string{"127.0.0.1"}}},
			MaxSessions: 1000,
		}, poolelement.StreamHandlerFunc(func(_ context.Context, s *poolelement.StreamSession) error {
			_, err := io.Copy(s, s)
			return err
		}))
	}()
	<-registered

	resolver, err := pooluser.New(pooluser.Config{Registrars: []transport.Endpoint{at}, Networks: networks})
	if err != nil {
		log.Fatal(err)
	}
	resolver.Start()
	defer resolver.Stop()
	conn, err := resolver.Dial(ctx, "echo")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(conn, "hello")
	answer := make([]byte, 5)
	if _, err := io.ReadFull(conn, answer); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", answer)
	conn.Close()
	drain()
	fmt.Println(<-done)
	// Output:
	// hello
	// <nil>
}
