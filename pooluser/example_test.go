package pooluser_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
	"rserpool/poolelement"
	"rserpool/pooluser"
	"rserpool/registrar"
)

// A registrar, a server that puts itself into a pool, and a client that asks for
// the pool by name: usually three programs, here one.
func Example() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	networks := transport.NewNetworks(tcp.New())
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)

	// The registrar.
	local, err := transport.ParseEndpoint("tcp://127.0.0.1:0", transport.TCP, 0)
	if err != nil {
		log.Fatal(err)
	}
	r, err := registrar.New(registrar.Config{
		Networks: networks,
		ASAP:     []transport.Endpoint{local},
		Log:      quiet,
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := r.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer r.Stop(ctx)
	at, err := transport.ParseEndpoint("tcp://"+r.Addrs()[0].Addrs[0].String(), transport.TCP, 3863)
	if err != nil {
		log.Fatal(err)
	}

	// The server: any TCP server, and a pool element that speaks for it.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(conn, "hello from the pool")
			conn.Close()
		}
	}()
	registered := make(chan struct{}, 1)
	element, err := poolelement.New(poolelement.Config{
		Handle:     "greeters",
		User:       param.Transport{Type: param.TypeTCPTransport, Port: uint16(listener.Addr().(*net.TCPAddr).Port)},
		Registrars: []transport.Endpoint{at},
		Networks:   networks,
		OnEvent: func(e poolelement.Event) {
			if e.Type == poolelement.RegistrationAccepted {
				registered <- struct{}{}
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := element.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer element.Stop(ctx)
	<-registered

	// The client.
	resolver, err := pooluser.New(pooluser.Config{Registrars: []transport.Endpoint{at}, Networks: networks})
	if err != nil {
		log.Fatal(err)
	}
	resolver.Start()
	defer resolver.Stop()
	conn, err := resolver.Dial(ctx, "greeters")
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(line)
	// Output: hello from the pool
}
