package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/mem"
	"rserpool/asap/transport/tcp"
)

// fakeRegistrar takes registrations and answers resolutions by all elements.
type fakeRegistrar struct {
	address  string
	mu       sync.Mutex
	elements map[param.PEID]param.PoolElement
	most     int // elements that were registered at once
	acks     int
	again    int // registrations of elements that there were
}

func (f *fakeRegistrar) serve(ctx context.Context, l transport.Listener) {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		c, err := l.Accept(ctx)
		if err != nil {
			return
		}
		running.Go(func() {
			defer c.Close()
			buf := make([]byte, transport.MaxMessage)
			for {
				m, err := c.Receive(ctx, buf)
				if err != nil {
					return
				}
				request, _, err := asap.Decode(m.Data)
				if err != nil {
					return
				}
				for _, answer := range f.answer(request) {
					b, err := answer.Append(nil)
					if err != nil || c.Send(ctx, transport.Message{Data: b}) != nil {
						return
					}
				}
			}
		})
	}
}

func (f *fakeRegistrar) answer(request asap.Message) []asap.Message {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch m := request.(type) {
	case *asap.Registration:
		if _, ok := f.elements[m.Element.ID]; ok {
			f.again++
		}
		f.elements[m.Element.ID] = m.Element
		f.most = max(f.most, len(f.elements))
		return []asap.Message{
			&asap.RegistrationResponse{Handle: m.Handle, ID: m.Element.ID},
			&asap.EndpointKeepAlive{Registrar: 1, Handle: m.Handle, ID: m.Element.ID},
		}
	case *asap.Deregistration:
		delete(f.elements, m.ID)
		return []asap.Message{&asap.DeregistrationResponse{Handle: m.Handle, ID: m.ID}}
	case *asap.EndpointKeepAliveAck:
		f.acks++
	case *asap.HandleResolution:
		r := &asap.HandleResolutionResponse{Handle: m.Handle, Policy: param.Policy{Type: param.RoundRobin}}
		for _, e := range f.elements {
			r.Elements = append(r.Elements, e)
		}
		return []asap.Message{r}
	}
	return nil
}

// startFake returns a registrar on loopback that serves until the test ends.
func startFake(t *testing.T) *fakeRegistrar {
	t.Helper()
	return startFakeAt(t, tcp.New(), "127.0.0.1:0")
}

func startFakeAt(t *testing.T, network transport.Network, at string) *fakeRegistrar {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l, err := network.Listen(ctx, []netip.AddrPort{netip.MustParseAddrPort(at)}, transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeRegistrar{address: l.Addrs()[0].String(), elements: make(map[param.PEID]param.PoolElement)}
	var running sync.WaitGroup
	running.Go(func() { f.serve(ctx, l) })
	t.Cleanup(func() {
		cancel()
		l.Close()
		running.Wait()
	})
	return f
}

// runLoad runs the program with the arguments, ADDRESS for that of a registrar on
// loopback, and PID for our own process. A measurement in which this machine did
// something else all the time is made again.
func runLoad(t *testing.T, args string) (*fakeRegistrar, *bytes.Buffer) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		var out bytes.Buffer
		f := startFake(t)
		args := strings.NewReplacer("ADDRESS", f.address, "PID", strconv.Itoa(os.Getpid())).Replace(args)
		switch err := run(t.Context(), strings.Fields(args), &out); {
		case err == nil:
			return f, &out
		case !errors.Is(err, errNoAnswer) || time.Now().After(end):
			t.Fatal(err)
		}
	}
}

// TestMain lets the test program be the echo server, as the program itself is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == echoCommand {
		if err := serveEcho(os.Args[2:]); err != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestLoad(t *testing.T) {
	f, out := runLoad(t, "--json --echo-baseline --register 40 --outstanding 3 --connections 2 --runs 3 --warmup 10ms --duration 150ms --target fake=tcp://ADDRESS")
	var got []summary
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 {
		t.Fatalf("%d servers measured: %s", len(got), out.Bytes())
	}
	for _, s := range got {
		if s.Rate <= 0 || s.P50 <= 0 || s.P99 < s.P50 || len(s.Rates) != 3 || s.ResponseSize != got[0].ResponseSize {
			t.Errorf("figures make no sense: %+v", s)
		}
	}
	if got[0].Elements != 40 || got[0].Target != "fake" || got[1].RateRatio <= 0 {
		t.Errorf("figures make no sense: %s", out.Bytes())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.most != 40 || len(f.elements) != 0 || f.acks != 40 {
		t.Errorf("%d elements were registered, %d acknowledged, %d left; want 40, 40, 0", f.most, f.acks, len(f.elements))
	}
}

// TestChurn: servers are measured once at rest and once while elements register again,
// as often as asked for.
func TestChurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, networks, _ := startAway(t)
		s, err := parse(strings.Fields("--json --register 10 --churn 2000 --connections 1 --warmup 10ms --duration 190ms --target fake=sctp://" + f.address))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := measure(t.Context(), networks, s, &out); err != nil {
			t.Fatal(err)
		}
		var got []summary
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if len(got) != 2 || got[0].Target != "fake" || got[1].Target != "fake, 2000 re-registrations/s" {
			t.Fatalf("measured %s", out.Bytes())
		}
		for _, s := range got { // one request after the other, which takes 2 ms
			if s.Rate < 490 || s.Rate > 510 {
				t.Errorf("%s: %v answers a second, want 500", s.Target, s.Rate)
			}
		}
		if f.again < 390 || f.again > 410 || len(f.elements) != 0 {
			t.Errorf("%d registrations again in 200 ms, want 400, %d elements left", f.again, len(f.elements))
		}
	})
}

// startAway returns a registrar in virtual time, 1 ms away, the networks that lead to
// it, and what can make it hang.
func startAway(t *testing.T) (*fakeRegistrar, *transport.Networks, *mem.Network) {
	t.Helper()
	net := mem.NewNetwork(1)
	f := startFakeAt(t, net.Host("registrar", "10.0.0.1").As(transport.SCTP), "10.0.0.1:3863")
	networks := transport.NewNetworks(net.Host("load", "10.0.0.2").As(transport.SCTP))
	net.Delay("load", "registrar", time.Millisecond, time.Millisecond)
	return f, networks, net
}

func TestRegistrations(t *testing.T) {
	f, out := runLoad(t, "registrations --json --clients 2 --outstanding 3 --runs 1 --warmup 10ms --duration 50ms --system fake=tcp://ADDRESS,tcp://ADDRESS --pids PID,PID")
	rows := 0
	for d := json.NewDecoder(out); d.More(); rows++ {
		var r writeRow
		if err := d.Decode(&r); err != nil {
			t.Fatal(err)
		}
		updates := r.Rate // registrations only, or a deregistration with each
		if r.Kind == registrarKinds[0].name {
			updates *= 2
		}
		if r.Clients != 2 || r.Outstanding != 3 || r.Rate <= 0 || r.Updates != updates || r.P50 <= 0 || r.P99 < r.P50 {
			t.Errorf("figures make no sense: %+v", r)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if rows != 2 || f.most != 6 || f.acks == 0 {
		t.Errorf("%d rows; %d elements at once, want 6; %d keep-alives acknowledged", rows, f.most, f.acks)
	}
}

// TestRegistrationsThatStay: what a measurement has left is gone before the next.
func TestRegistrationsThatStay(t *testing.T) {
	f, out := runLoad(t, "registrations --json --clients 2 --outstanding 3 --runs 2 --writes more --warmup 10ms --duration 50ms --system fake=tcp://ADDRESS")
	var r writeRow
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if r.Rate <= 0 || r.Updates != r.Rate || len(r.Rates) != 2 {
		t.Errorf("figures make no sense: %+v", r)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.most <= 6 || f.again > 0 || len(f.elements) != 0 {
		t.Errorf("%d elements at once, %d registered again, %d left", f.most, f.again, len(f.elements))
	}
}

// TestEtcdMessages: the fields that etcd's messages are made of can be found again.
func TestEtcdMessages(t *testing.T) {
	b := appendVarint(appendBytes(nil, 1, []byte("header")), leaseGrantID, 1<<60)
	if got, err := varintField(b, leaseGrantID); err != nil || got != 1<<60 {
		t.Errorf("%d, %v", got, err)
	}
	if got, err := varintField(b[:7], leaseGrantID); err == nil {
		t.Errorf("found %d in a message that has been cut off", got)
	}
}

// TestServerGoes: a server that closes is an error, not a wait.
func TestServerGoes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	var out bytes.Buffer
	if err := run(t.Context(), []string{"--target", l.Addr().String()}, &out); err == nil {
		t.Errorf("measured a server that closes: %s", out.Bytes())
	}
}

func TestParse(t *testing.T) {
	for _, args := range []string{"", "--target udp://x", "--target a --pid 1 --pid 2", "--target a --connections 0", "--target a b", "--target a --format x", "--target a --compat y"} {
		if s, err := parse(strings.Fields(args)); err == nil {
			t.Errorf("%q was accepted: %+v", args, s)
		}
	}
	s, err := parse(strings.Fields("--target a=sctp://10.0.0.1:1 --pid 7 --target b --compat rsplib"))
	if err != nil || len(s.targets) != 2 || s.targets[0].pid != 7 || s.targets[0].name != "a" || s.targets[1].endpoint.Port != asap.Port || !s.rsplib {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestParseCPU(t *testing.T) {
	got, err := parseCPU("42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 8 0 100 1000 200")
	if err != nil || got != 3*time.Second {
		t.Errorf("CPU time %v, %v; want 3s", got, err)
	}
	if _, err := parseCPU("42 (x) S 1"); err == nil {
		t.Error("a short line was accepted")
	}
	if _, err := cpuOf(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("CPU time of no process: %v", err)
	}
}
