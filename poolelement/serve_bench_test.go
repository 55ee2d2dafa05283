package poolelement

import (
	"context"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"rserpool/asap/transport"
	"rserpool/asap/transport/framed"
	"rserpool/asap/transport/tcp"
)

// serveLoopback starts a server on TCP of this machine, without a registrar.
func serveLoopback(b *testing.B, handler Handler) *Server {
	b.Helper()
	s, err := NewServer(ServeConfig{
		Element: Config{
			Handle:     "bench",
			Registrars: []transport.Endpoint{{Network: transport.TCP, Hosts: []string{"127.0.0.1"}, Port: 1}},
			Networks:   transport.NewNetworks(tcp.New()),
			Control:    transport.Endpoint{Hosts: []string{"127.0.0.1"}},
		},
		Listen:       []transport.Endpoint{{Network: transport.TCP, Hosts: []string{"127.0.0.1"}}},
		DrainTimeout: time.Second,
	}, handler)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	for s.Addrs() == nil {
		time.Sleep(time.Millisecond)
	}
	return s
}

// BenchmarkIdleSessions measures what a session costs while nothing happens: after
// one request and its answer. The user's end is a bare socket.
func BenchmarkIdleSessions(b *testing.B) {
	const sessions = 2000
	for b.Loop() {
		b.StopTimer()
		s := serveLoopback(b, HandlerFunc(echo))
		memory := func() (heap, stack uint64) {
			runtime.GC()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapInuse, m.StackInuse
		}
		heap, stack := memory()
		goroutines := runtime.NumGoroutine()
		b.StartTimer()
		var users []net.Conn
		var opening sync.WaitGroup
		request := []byte("RSPS\x01\x00\x00\x00" + "\x00\x00\x00\x07\x00\x00\x00\x05hello")
		for range sessions {
			conn, err := net.Dial("tcp", s.Addrs()[0].String())
			if err != nil {
				b.Fatal(err)
			}
			users = append(users, conn)
			opening.Go(func() {
				conn.Write(request)
				for n, buf := 0, make([]byte, len(request)); n < len(request); {
					k, err := conn.Read(buf)
					if err != nil {
						b.Error(err)
						return
					}
					n += k
				}
			})
		}
		opening.Wait()
		b.StopTimer()
		heapNow, stackNow := memory()
		b.ReportMetric(float64(heapNow-heap)/sessions, "heap-B/session")
		b.ReportMetric(float64(stackNow-stack)/sessions, "stack-B/session")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/sessions, "goroutines/session")
		for _, conn := range users {
			conn.Close()
		}
		for s.Stats().Sessions > 0 {
			time.Sleep(time.Millisecond)
		}
		b.StartTimer()
	}
}

// BenchmarkEcho measures one request and its answer.
func BenchmarkEcho(b *testing.B) {
	s := serveLoopback(b, HandlerFunc(echo))
	ctx := context.Background()
	stream, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		b.Fatal(err)
	}
	conn, err := framed.Client(ctx, stream, framed.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	data, buf := make([]byte, 100), make([]byte, 1000)
	b.ReportAllocs()
	for b.Loop() {
		if err := conn.Send(ctx, transport.Message{Data: data, PPID: 7}); err != nil {
			b.Fatal(err)
		}
		if _, err := conn.Receive(ctx, buf); err != nil {
			b.Fatal(err)
		}
	}
}
