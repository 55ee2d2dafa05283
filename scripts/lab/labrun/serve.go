package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"rserpool/asap/transport"
	"rserpool/asap/transport/sctp"
)

// serve is a server for rsppe to put into a pool: echo or chargen at an endpoint.
func serve(what, at string) error {
	endpoint, err := transport.ParseEndpoint(at, transport.SCTP, 0)
	if err != nil {
		return err
	}
	if endpoint.Network == transport.TCP {
		return serveTCP(net.JoinHostPort(endpoint.Hosts[0], fmt.Sprint(endpoint.Port)))
	}
	ctx := context.Background()
	listeners, err := transport.NewNetworks(sctp.New()).Listen(ctx, endpoint, transport.Options{})
	if err != nil {
		return err
	}
	fmt.Println("serving", what, "at", endpoint)
	for {
		conn, err := listeners[0].Accept(ctx)
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if what == "chargen" {
				fmt.Println("chargen:", chargen(ctx, conn))
			} else {
				fmt.Println("echo:", echo(ctx, conn))
			}
		}()
	}
}

func echo(ctx context.Context, conn transport.Conn) error {
	buf := make([]byte, transport.MaxMessage)
	for {
		m, err := conn.Receive(ctx, buf)
		if err != nil {
			return err
		}
		if err := conn.Send(ctx, m); err != nil {
			return err
		}
	}
}

func chargen(ctx context.Context, conn transport.Conn) error {
	for {
		if err := conn.Send(ctx, transport.Message{Data: []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZ\n")}); err != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func serveTCP(at string) error {
	l, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	fmt.Println("serving echo at", at)
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			_, err := io.Copy(conn, conn)
			fmt.Println("echo:", errors.Join(err, conn.Close()))
		}()
	}
}

// server starts serve on a host and waits until it listens.
func (l *lab) server(h host, name, what, at string) *process {
	p := l.mustStart(h, name, l.bin("labrun"), "-serve", what, "-at", at)
	l.need(strings.ReplaceAll(name, "-", " ")+" listens", p.says("serving", 1, 5*time.Second))
	return p
}
