//go:build unix

package registrar

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
)

// BenchmarkRegistration measures registrations over TCP on this host, each client
// with one outstanding, by a registrar alone and by one of a ring of three that all
// run here. p50 and p99 are latencies.
func BenchmarkRegistration(b *testing.B) {
	for _, members := range []int{1, 3} {
		for _, clients := range []int{1, 64} {
			b.Run(fmt.Sprintf("members=%d/clients=%d", members, clients), func(b *testing.B) { benchmarkRegistration(b, members, clients) })
		}
	}
}

func benchmarkRegistration(b *testing.B, members, clients int) {
	at := startBench(b, members)
	var group sync.WaitGroup
	times := make([][]time.Duration, clients)
	conns := make([]net.Conn, clients)
	for i := range conns {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		conns[i] = conn
	}
	b.ResetTimer()
	start, used := time.Now(), cpuTime(b)
	for i, conn := range conns {
		n := b.N / clients
		if i < b.N%clients {
			n++
		}
		group.Go(func() { times[i] = registerOver(b, conn, param.PEID(i+1), n) })
	}
	group.Wait()
	b.StopTimer()
	all := slices.Sorted(slices.Values(slices.Concat(times...)))
	if len(all) > 0 {
		b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-us")
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-us")
		b.ReportMetric(float64(len(all))/time.Since(start).Seconds(), "reg/s")
		b.ReportMetric(float64((cpuTime(b)-used).Microseconds())/float64(len(all)), "cpu-us/op")
	}
}

// cpuTime returns what the process has used: what it takes on a machine that has
// nothing else to do.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// registerOver registers an element n times, one registration after the other.
func registerOver(b *testing.B, conn net.Conn, id param.PEID, n int) []time.Duration {
	local := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	request, err := (&asap.Registration{Handle: pool, Element: param.PoolElement{
		ID: id, Life: 300, User: param.Transport{Type: param.TypeTCPTransport, Port: 7, Addrs: []netip.Addr{local.Addr().Unmap()}},
		Policy: param.Policy{Type: param.RoundRobin},
	}}).Append(nil)
	if err != nil {
		b.Error(err)
		return nil
	}
	response, err := (&asap.RegistrationResponse{Handle: pool, ID: id}).Append(nil)
	if err != nil {
		b.Error(err)
		return nil
	}
	answer := make([]byte, len(response))
	times := make([]time.Duration, 0, n)
	for range n {
		start := time.Now()
		if _, err := conn.Write(request); err != nil {
			b.Error(err)
			return nil
		}
		if _, err := io.ReadFull(conn, answer); err != nil || !bytes.Equal(answer, response) {
			b.Errorf("answer %x, %v", answer, err)
			return nil
		}
		times = append(times, time.Since(start))
	}
	return times
}

// startBench starts registrars in one ring, or one without, and returns where the
// first serves.
func startBench(b *testing.B, members int) string {
	log := logrus.New()
	log.SetOutput(io.Discard)
	networks := transport.NewNetworks(tcp.New())
	endpoint := func(port int) transport.Endpoint {
		return transport.Endpoint{Network: transport.TCP, Hosts: []string{"127.0.0.1"}, Port: uint16(port)}
	}
	var peers []transport.Endpoint
	for range members {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		peers = append(peers, endpoint(l.Addr().(*net.TCPAddr).Port))
		l.Close()
	}
	var all []*Registrar
	for i := range members {
		cfg := Config{ID: ownID + param.RegistrarID(i), Networks: networks, ASAP: []transport.Endpoint{endpoint(0)}, Log: log}
		if members > 1 {
			cfg.Ring = RingConfig{Listen: peers[i : i+1], Peers: peers, Networks: networks}
		}
		r, err := New(cfg)
		if err == nil {
			err = r.Start(context.Background())
		}
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := r.Stop(context.Background()); err != nil {
				b.Error(err)
			}
		})
		all = append(all, r)
	}
	for start := time.Now(); slices.ContainsFunc(all, func(r *Registrar) bool { return !wholeRing(r, members) }); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			b.Fatal("no ring")
		}
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(all[0].Addrs()[0].Addrs[0].Port())))
}

func wholeRing(r *Registrar, members int) bool {
	if r.ring == nil || !r.ready.Load() {
		return r.ready.Load()
	}
	st, err := r.ring.group.Status(context.Background())
	return err == nil && len(st.View.Members) == members && st.Synced == st.View.ID
}

// BenchmarkHandOver measures what it takes to hand the owner loop what a token
// brought and to wait until it is applied.
func BenchmarkHandOver(b *testing.B) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	networks := transport.NewNetworks(tcp.New())
	at := []transport.Endpoint{{Network: transport.TCP, Hosts: []string{"127.0.0.1"}}}
	fake := newFakeRing()
	defer fake.close()
	r, err := New(Config{ID: ownID, Networks: networks, ASAP: at, Log: log, Ring: RingConfig{Listen: at, Networks: networks}})
	if err != nil {
		b.Fatal(err)
	}
	r.newGroup = fake.group
	if err := r.Start(context.Background()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		r.ring.Handle(nil)
	}
	b.StopTimer()
	if err := r.Stop(context.Background()); err != nil {
		b.Error(err)
	}
}
