package framed

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap/transport"
	"rserpool/asap/transport/transporttest"
)

// The word of an orderly end is not left out because an answer to a heartbeat happens
// to be under way.
func TestGoodbyeComesAfterAHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pair(t)
		go keepReceiving(server)
		client.Beat()
		synctest.Wait() // the answer waits for the client to read
		go server.Finish(t.Context())
		time.Sleep(goodbyeWait / 2)
		if _, err := client.Next(t.Context()); err != io.EOF {
			t.Errorf("the end is %v, want EOF", err)
		}
	})
}

// securedPair is pair over TLS.
func securedPair(t *testing.T) (client, server *Conn) {
	t.Helper()
	a, b := net.Pipe()
	got := make(chan *Conn)
	cert, trusted := transporttest.Certificate(t, "element")
	go func() {
		c, err := Server(t.Context(), tls.Server(b, &tls.Config{Certificates: []tls.Certificate{cert}}), Options{})
		if err != nil {
			t.Error(err)
		}
		got <- c
	}()
	client, err := Client(t.Context(), tls.Client(a, &tls.Config{RootCAs: trusted, ServerName: "element"}), Options{})
	if err != nil {
		t.Fatal(err)
	}
	server = <-got
	t.Cleanup(func() { _ = client.Abort(); _ = server.Abort() })
	return client, server
}

// TLS would wait for a peer that does not read, in order to say that it ends.
func TestEndsOfTLSDontWait(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(c *Conn)
		most time.Duration
	}{
		{"Close", func(c *Conn) { _ = c.Close() }, 2 * goodbyeWait},
		{"Abort", func(c *Conn) { _ = c.Abort() }, 0},
		{"Send", func(c *Conn) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if err := c.Send(ctx, transport.Message{Data: []byte("x")}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("send: %v", err)
			}
		}, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, _ := securedPair(t)
				began := time.Now()
				c.end(client)
				if took := time.Since(began); took > c.most {
					t.Errorf("took %v, at most %v", took, c.most)
				}
			})
		})
	}
}

func TestNobodyAnswersTheHandshakeOfTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		go func() { _, _ = io.Copy(io.Discard, b) }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := Client(ctx, tls.Client(a, &tls.Config{InsecureSkipVerify: true}), Options{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("client: %v", err)
		}
	})
}
