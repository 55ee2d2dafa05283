package pooluser_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"strings"
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

// converse opens a session, asks for something, and reads the answer.
func converse(ctx context.Context, resolver *pooluser.Resolver, requests []string) error {
	session, err := resolver.Open(ctx, "sums", pooluser.SessionConfig{
		Timers:   pooluser.Patient,
		Delivery: pooluser.AtLeastOnce,
	})
	if err != nil {
		return err // who was tried, and why it failed
	}
	defer session.Close()
	for _, request := range requests {
		if err := session.Send(ctx, pooluser.Message{Data: []byte(request)}); err != nil {
			return err
		}
		answer, err := session.Receive(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", answer.Data)
	}
	return nil
}

// follow tells what becomes of a session that was opened with Notifications.
func follow(ctx context.Context, session *pooluser.Session) error {
	for {
		m, err := session.Receive(ctx)
		switch n := m.Notification; {
		case err == io.EOF:
			return nil // the element has ended the session
		case err != nil:
			return err
		case n == nil:
			fmt.Printf("answer %s\n", m.Data)
		case n.Kind == pooluser.FailoverBegun:
			fmt.Println("the element has failed")
		case n.Kind == pooluser.FailedOver:
			fmt.Println("another one goes on")
		}
	}
}

// careful is a hook: it shows who we are before anything else goes to a new element,
// and gives up where that is refused.
func careful(ctx context.Context, f *pooluser.Failover) error {
	if err := f.Send(ctx, pooluser.Message{Data: []byte("login 0")}); err != nil {
		return err
	}
	answer, err := f.Receive(ctx)
	switch {
	case err != nil:
		return err // the next element is tried
	case string(answer.Data) != "welcome":
		return fmt.Errorf("%w: login refused", pooluser.ErrGiveUp)
	}
	return nil
}

// copyLines sends lines over a stream, one at a time, and begins again with the line
// that was not answered when the element fails.
func copyLines(stream *pooluser.Stream, lines []string, answers io.Writer) error {
	in := bufio.NewReader(stream)
	for i := 0; i < len(lines); {
		_, err := fmt.Fprintln(stream, lines[i])
		var answer string
		if err == nil {
			answer, err = in.ReadString('\n')
		}
		var failover *pooluser.FailoverError
		switch {
		case err == nil:
			fmt.Fprint(answers, answer)
			i++
		case errors.As(err, &failover):
			in.Reset(stream)  // half an answer of the old element
			stream.Continue() // what follows is about failover.To
		default:
			return err
		}
	}
	return nil
}

// A session that goes on with its state when the element fails, then one that tells
// of it.
func ExampleResolver_Open() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	resolver, end := sums(ctx)
	defer end()

	if err := converse(ctx, resolver, []string{"10", "20", "fail", "5"}); err != nil {
		log.Fatal(err)
	}

	begun := make(chan struct{}, 1)
	session, err := resolver.Open(ctx, "sums", pooluser.SessionConfig{
		Timers:        pooluser.Patient,
		Notifications: true,
		OnFailover: func(ctx context.Context, f *pooluser.Failover) error {
			begun <- struct{}{}
			return careful(ctx, f)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	for _, request := range []string{"fail", "bye"} {
		if err := session.Send(ctx, pooluser.Message{Data: []byte(request)}); err != nil {
			log.Fatal(err)
		}
		if request == "fail" { // with AtMostOnce, what is sent into a failure is lost
			<-begun
		}
	}
	if err := follow(ctx, session); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 10
	// 30
	// failed, and came back with 30
	// 35
	// the element has failed
	// another one goes on
}

// A byte stream to a pool of elements that answer lines.
func ExampleResolver_OpenStream() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	resolver, end := lines(ctx)
	defer end()

	stream, err := resolver.OpenStream(ctx, "lines", pooluser.StreamConfig{Timers: pooluser.Patient, FailoverOnEOF: true})
	if err != nil {
		log.Fatal(err)
	}
	defer stream.Close()
	var answers strings.Builder
	if err := copyLines(stream, []string{"one", "two", "three"}, &answers); err != nil {
		log.Fatal(err)
	}
	fmt.Print(answers.String())
	// Output:
	// ONE
	// TWO
	// THREE
}

// sum is an element's handler: it adds up numbers, and "fail" makes it fail once.
func sum(ctx context.Context, s *poolelement.Session) error {
	total, resumed := 0, false
	for {
		in, err := s.Receive(ctx)
		if err != nil {
			return nil // the user has finished, or gone
		}
		if in.Kind == poolelement.Resumed {
			resumed = true
			if _, err := fmt.Sscan(string(in.State), &total); err != nil {
				return err
			}
		}
		if in.Kind != poolelement.Data {
			continue
		}
		var answer string
		switch request := string(in.Data); {
		case request == "bye":
			return nil
		case request == "login 0":
			answer, resumed = "welcome", true
		case request == "fail" && !resumed:
			return errors.New("asked to fail")
		case request == "fail":
			answer = fmt.Sprint("failed, and came back with ", total)
		default:
			var n int
			if _, err := fmt.Sscan(request, &n); err != nil {
				return err
			}
			total += n
			answer = fmt.Sprint(total)
		}
		if err := s.SaveState(ctx, fmt.Append(nil, total)); err != nil {
			return err
		}
		if err := s.Send(ctx, transport.Message{Data: []byte(answer)}); err != nil {
			return err
		}
	}
}

// upper is a handler of streams: it answers lines in capitals, and leaves after the
// first one that it answers.
func upper(_ context.Context, s *poolelement.StreamSession) error {
	line, err := bufio.NewReader(s).ReadString('\n')
	if err != nil {
		return nil
	}
	_, err = fmt.Fprint(s, strings.ToUpper(line))
	return err
}

// sums starts a pool of two elements that add up, and a resolver.
func sums(ctx context.Context) (*pooluser.Resolver, func()) {
	sealer, err := cookie.New(cookie.Config{Pool: "sums", Keys: []cookie.Key{{ID: 1, Secret: []byte("32 octets that only elements know")}}})
	if err != nil {
		log.Fatal(err)
	}
	return startPool(ctx, "sums", func(ctx context.Context, cfg poolelement.ServeConfig) error {
		cfg.Cookies = sealer
		return poolelement.Serve(ctx, cfg, poolelement.HandlerFunc(sum))
	})
}

// lines starts a pool of two elements that answer lines, and a resolver.
func lines(ctx context.Context) (*pooluser.Resolver, func()) {
	return startPool(ctx, "lines", func(ctx context.Context, cfg poolelement.ServeConfig) error {
		return poolelement.ServeStreams(ctx, cfg, poolelement.StreamHandlerFunc(upper))
	})
}

// startPool starts a registrar, two elements and a resolver.
func startPool(ctx context.Context, pool param.PoolHandle, serve func(context.Context, poolelement.ServeConfig) error) (*pooluser.Resolver, func()) {
	networks := transport.NewNetworks(tcp.New())
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	local := []transport.Endpoint{{Network: transport.TCP, Hosts: []string{"127.0.0.1"}}}
	r, err := registrar.New(registrar.Config{Networks: networks, ASAP: local, Log: quiet})
	if err != nil {
		log.Fatal(err)
	}
	if err := r.Start(ctx); err != nil {
		log.Fatal(err)
	}
	addr := r.Addrs()[0].Addrs[0]
	at := []transport.Endpoint{{Network: transport.TCP, Hosts: []string{addr.Addr().String()}, Port: addr.Port()}}

	serving, drain := context.WithCancel(ctx)
	done := make(chan error)
	for range 2 {
		registered := make(chan struct{}, 1)
		cfg := poolelement.ServeConfig{
			Listen: local,
			Element: poolelement.Config{
				Handle: pool, Registrars: at, Networks: networks, Log: quiet,
				OnEvent: func(e poolelement.Event) {
					if e.Type == poolelement.RegistrationAccepted {
						registered <- struct{}{}
					}
				},
			},
		}
		go func() { done <- serve(serving, cfg) }()
		select {
		case <-registered:
		case err := <-done:
			log.Fatal(err)
		}
	}
	resolver, err := pooluser.New(pooluser.Config{Registrars: at, Networks: networks})
	if err != nil {
		log.Fatal(err)
	}
	resolver.Start()
	return resolver, func() {
		resolver.Stop()
		drain()
		for range 2 {
			if err := <-done; err != nil {
				log.Print(err)
			}
		}
		r.Stop(context.WithoutCancel(ctx))
	}
}
