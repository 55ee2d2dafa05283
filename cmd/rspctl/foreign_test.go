package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/mem"
	"rserpool/cmd/internal/cli"
	"rserpool/enrp"
	"rserpool/registrar/admin"
)

const (
	peerID  param.RegistrarID = 0x11111111
	otherID param.RegistrarID = 0x22222222
)

// lab is a network with a scripted registrar on one machine and rspctl on
// another.
type lab struct {
	t        *testing.T
	net      *mem.Network
	networks *transport.Networks
	ended    sync.WaitGroup
	cancel   context.CancelFunc

	mu   sync.Mutex
	seen []string // what the registrar saw
}

func newLab(t *testing.T) *lab {
	l := &lab{t: t, net: mem.NewNetwork(1)}
	l.net.Host("registrar", "10.0.0.1")
	l.networks = transport.NewNetworks(l.net.Host("rspctl", "10.0.0.2", "127.0.0.2"))
	t.Cleanup(func() {
		if l.cancel != nil {
			l.cancel()
		}
		l.ended.Wait()
	})
	return l
}

func (l *lab) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, fmt.Sprintf(format, args...))
}

func (l *lab) log() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.seen, "; ")
}

// serve answers each message on a port by what handler returns, until the test
// ends.
func (l *lab) serve(port uint16, ppid uint32, handler func(conn transport.Conn) func(data []byte) []appender) {
	l.t.Helper()
	ctx, cancel := context.WithCancel(l.t.Context())
	if before := l.cancel; before != nil {
		l.cancel = func() { before(); cancel() }
	} else {
		l.cancel = cancel
	}
	listener, err := l.net.Host("registrar").Listen(ctx, []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port)}, transport.Options{})
	if err != nil {
		l.t.Fatal(err)
	}
	l.ended.Go(func() {
		defer listener.Close()
		for {
			conn, err := listener.Accept(ctx)
			if err != nil {
				return
			}
			l.ended.Go(func() {
				defer conn.Close()
				answer, buf := handler(conn), make([]byte, transport.MaxMessage)
				for {
					m, err := conn.Receive(ctx, buf)
					if err != nil {
						l.note("left")
						return
					}
					if m.PPID != ppid {
						l.note("PPID %d", m.PPID)
					}
					for _, out := range answer(m.Data) {
						data, err := out.Append(nil)
						if err != nil {
							l.t.Error(err)
						}
						if err := conn.Send(ctx, transport.Message{Data: data, PPID: ppid}); err != nil {
							return
						}
					}
				}
			})
		}
	})
}

type appender interface {
	Append([]byte) ([]byte, error)
}

// enrpPeer is a registrar as strict as rsplib's: it answers only who has shown
// itself with the address and port of its association, gives the table in pages,
// and asks questions of its own.
func (l *lab) enrpPeer(pages func() [][]enrp.Pool) {
	l.serve(enrp.Port, transport.PPIDENRP, func(conn transport.Conn) func([]byte) []appender {
		var guest param.RegistrarID
		var rest [][]enrp.Pool
		started := false
		return func(data []byte) []appender {
			m, _, err := enrp.Decode(data)
			if err != nil {
				l.t.Error(err)
				return nil
			}
			l.note("%s", strings.TrimPrefix(m.Type().String(), "ENRP_"))
			ids := enrp.Servers{Sender: peerID, Receiver: m.IDs().Sender}
			switch m := m.(type) {
			case *enrp.Presence:
				if m.Checksum != 0xffff || !slices.Contains(m.Server.Transport.AddrPorts(), conn.RemoteAddrs()[0]) || m.Server.ID != m.Sender {
					l.t.Errorf("not acceptable: %+v from %v", m, conn.RemoteAddrs())
					return nil
				}
				guest = m.Sender
				if !m.ReplyRequired {
					return nil
				}
				return []appender{
					&enrp.Presence{Servers: ids, Server: serverAt(peerID, "10.0.0.1")},
					&enrp.ListRequest{Servers: ids},
					&enrp.HandleTableRequest{Servers: ids, OwnOnly: true},
					&enrp.InitTakeover{Servers: ids, Target: otherID},
				}
			case *enrp.ListRequest:
				return []appender{&enrp.ListResponse{Servers: ids, Peers: []param.ServerInformation{serverAt(otherID, "10.0.0.9"), serverAt(guest, "10.0.0.2")}}}
			case *enrp.HandleTableRequest:
				if guest == 0 {
					return []appender{&enrp.HandleTableResponse{Servers: ids, Reject: true}}
				}
				if !started {
					rest, started = pages(), true
				}
				if len(rest) == 0 {
					return []appender{&enrp.HandleTableResponse{Servers: ids}}
				}
				page := rest[0]
				rest = rest[1:]
				return []appender{&enrp.HandleTableResponse{Servers: ids, More: len(rest) > 0, Pools: page}}
			}
			l.t.Errorf("rspctl sent %v", m.Type())
			return nil
		}
	})
}

func serverAt(id param.RegistrarID, addr string) param.ServerInformation {
	return param.ServerInformation{ID: id, Transport: param.Transport{Type: param.TypeSCTPTransport, Port: enrp.Port, Addrs: []netip.Addr{netip.MustParseAddr(addr)}}}
}

func element(id param.PEID, home param.RegistrarID, weight uint32) param.PoolElement {
	at := netip.AddrFrom4([4]byte{192, 0, 2, byte(id)})
	return param.PoolElement{
		ID: id, Home: home, Life: 90000,
		User:   param.Transport{Type: param.TypeTCPTransport, Port: 80, Addrs: []netip.Addr{at}},
		Policy: param.Policy{Type: param.WeightedRoundRobin, Weight: weight},
		ASAP:   param.Transport{Type: param.TypeSCTPTransport, Port: 3863, Addrs: []netip.Addr{at}},
	}
}

func pages() [][]enrp.Pool {
	return [][]enrp.Pool{
		{{Handle: "echo", Elements: []param.PoolElement{element(2, peerID, 1)}}, {Handle: "echo", Elements: []param.PoolElement{element(1, otherID, 5)}}},
		{{Handle: "echo", Elements: []param.PoolElement{element(3, peerID, 1)}}},
		{{Handle: "\x00\\", Elements: []param.PoolElement{element(4, peerID, 1)}}},
	}
}

func (l *lab) rspctl(args ...string) (cli.ExitCode, string, string) {
	return rspctl(l.t.Context(), l.networks, append(args, "-s", "mem://10.0.0.1")...)
}

func TestForeignRegistrarIsReadByENRP(t *testing.T) {
	for _, test := range []struct {
		name, args string
		code       cli.ExitCode
	}{
		{"foreign-pools", "pools", cli.OK},
		{"foreign-pool-show", "pool show echo -o wide --compat rsplib", cli.OK},
		{"foreign-pool-odd-name", `pool show \x00\x5c`, cli.OK},
		{"foreign-pool-json", `pool show \x00\x5c -o json`, cli.OK},
		{"foreign-pool-absent", "pool show ech", cli.NotFound},
		{"foreign-registrars", "registrars", cli.OK},
		{"foreign-status", "status -o json", cli.OK},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				l.enrpPeer(pages)
				code, stdout, stderr := l.rspctl(strings.Fields(test.args)...)
				if code != test.code {
					t.Errorf("exit %d, want %d", code, test.code)
				}
				if stderr != "" {
					stdout += "--- stderr\n" + stderr
				}
				golden(t, test.name, stdout)
				synctest.Wait()
				// Nothing but its own requests, and gone at once.
				if want := "PRESENCE; LIST_REQUEST" + strings.Repeat("; PRESENCE; HANDLE_TABLE_REQUEST", 3) + "; left"; l.log() != want {
					t.Errorf("the registrar saw %s, want %s", l.log(), want)
				}
			})
		})
	}
}

func TestForeignRegistrarFailures(t *testing.T) {
	answer := func(f func(enrp.Message, enrp.Servers) []appender) func(*lab) {
		return func(l *lab) {
			l.serve(enrp.Port, transport.PPIDENRP, func(conn transport.Conn) func([]byte) []appender {
				return func(data []byte) []appender {
					m, _, err := enrp.Decode(data)
					if err != nil {
						l.t.Error(err)
						return nil
					}
					return f(m, enrp.Servers{Sender: peerID, Receiver: m.IDs().Sender})
				}
			})
		}
	}
	for _, test := range []struct {
		name   string
		peer   func(*lab)
		code   cli.ExitCode
		stderr string
		took   time.Duration
	}{
		{"nothing there", func(*lab) {}, cli.Unreachable, "not reachable", 0},
		{"silence", answer(func(enrp.Message, enrp.Servers) []appender { return nil }), cli.TimedOut, "no answer to the list request within 5s", 5 * time.Second},
		{"rejection", answer(func(m enrp.Message, ids enrp.Servers) []appender {
			if m.Type() != enrp.TypeListRequest {
				return nil
			}
			return []appender{&enrp.ListResponse{Servers: ids, Reject: true}}
		}), cli.Failed, "refused by the registrar: the list request, 3 times", 4 * time.Second},
		{"malformed answer", answer(func(m enrp.Message, ids enrp.Servers) []appender {
			if m.Type() != enrp.TypeListRequest {
				return nil
			}
			return []appender{octets{6, 0, 0, 200, 1, 1, 1, 1, 0, 0, 0, 0}}
		}), cli.TimedOut, "can't be read", 5 * time.Second},
		{"error report", answer(func(m enrp.Message, ids enrp.Servers) []appender {
			return []appender{&enrp.Error{Servers: ids, Causes: param.OperationError{{Code: param.CauseInvalidValues}}}}
		}), cli.Failed, "the registrar reports Invalid Values", 0},
		{"association closed", func(l *lab) {
			l.serve(enrp.Port, transport.PPIDENRP, func(conn transport.Conn) func([]byte) []appender {
				return func([]byte) []appender {
					conn.Close()
					return nil
				}
			})
		}, cli.Failed, "the registrar closed the association", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				test.peer(l)
				start := time.Now()
				code, stdout, stderr := l.rspctl("pools")
				if code != test.code || !strings.Contains(stderr, test.stderr) || stdout != "" {
					t.Errorf("exit %d, %q, %q, want %d, %q", code, stdout, stderr, test.code, test.stderr)
				}
				if took := time.Since(start); took != test.took {
					t.Errorf("took %v, want %v", took, test.took)
				}
			})
		})
	}
	t.Run("slower than the time allowed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t)
			l.enrpPeer(pages)
			l.net.Delay("rspctl", "registrar", time.Second, time.Second)
			if code, _, stderr := l.rspctl("pools", "--timeout", "2500ms"); code != cli.TimedOut {
				t.Errorf("exit %d, %s", code, stderr)
			}
		})
	})
}

type octets []byte

func (o octets) Append(dst []byte) ([]byte, error) { return append(dst, o...), nil }

func TestWatchOfForeignRegistrarShowsDifferences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		looks := 0
		l.enrpPeer(func() [][]enrp.Pool {
			looks++
			list := []param.PoolElement{element(1, peerID, 1)}
			if looks >= 2 {
				list = append(list, element(2, peerID, 1))
			}
			if looks >= 3 {
				list[0].Policy.Weight = 2
			}
			if looks >= 4 {
				list = list[1:]
			}
			return [][]enrp.Pool{{{Handle: "a", Elements: list}, {Handle: "other", Elements: []param.PoolElement{element(9, peerID, uint32(looks))}}}}
		})
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(45*time.Second, func() { l.net.Cut("rspctl", "registrar") })
		time.AfterFunc(85*time.Second, func() { l.net.Heal("rspctl", "registrar") })
		time.AfterFunc(2*time.Minute+time.Second, func() { cancel(cli.ErrSignal) })
		code, stdout, stderr := rspctl(ctx, l.networks, "watch", "a", "-o", "json", "-s", "mem://10.0.0.1", "--interval", "20s")
		if code != cli.Interrupted || stderr != "" {
			t.Errorf("exit %d, %s", code, stderr)
		}
		var got []string
		for line := range strings.Lines(stdout) {
			var e admin.Event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(e.Seq, " ", e.Type, " ", e.ID))
		}
		want := "1 snapshot , 2 registered 0x00000002, 3 updated 0x00000001, 4 removed 0x00000001"
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("events %s, want %s", s, want)
		}
	})
}

// asapPeer answers ASAP requests by handler.
func (l *lab) asapPeer(handler func(asap.Message) []appender) {
	l.serve(asap.Port, transport.PPIDASAP, func(transport.Conn) func([]byte) []appender {
		return func(data []byte) []appender {
			m, _, err := asap.Decode(data)
			if err != nil {
				l.t.Error(err)
				return nil
			}
			return handler(m)
		}
	})
}

func TestForeignRegistrarIsAskedByASAP(t *testing.T) {
	unknown := param.OperationError{{Code: param.CauseUnknownPoolHandle}}
	security := param.OperationError{{Code: param.CauseSecurity}}
	keepAlive := &asap.EndpointKeepAlive{Registrar: peerID, Handle: "p"}
	for _, test := range []struct {
		name, args string
		handler    func(asap.Message) []appender
		code       cli.ExitCode
		want       string // of standard output or error output
	}{
		{"resolve", "resolve p --items 7 --no-headers --compat rsplib -o wide", func(m asap.Message) []appender {
			if r := m.(*asap.HandleResolution); r.Handle != "p" || r.Items != 7 || r.SendUpdates {
				return nil
			}
			return []appender{&asap.HandleResolutionResponse{Handle: "other", Error: unknown}, &asap.HandleResolutionResponse{
				Handle: "p", Policy: param.Policy{Type: param.WeightedRoundRobin, Weight: 1}, Elements: []param.PoolElement{element(2, peerID, 1), element(1, peerID, 3)}}}
		}, cli.OK, "0x00000002  active  0x11111111  tcp://192.0.2.2:80  wrr:1  1m30s  -  0  -  sctp://192.0.2.2:3863\n" +
			"0x00000001  active  0x11111111  tcp://192.0.2.1:80  wrr:3  1m30s  -  0  -  sctp://192.0.2.1:3863\n"},
		{"resolve without a policy", "resolve p -o json", func(asap.Message) []appender {
			return []appender{&asap.HandleResolutionResponse{Handle: "p", Elements: []param.PoolElement{element(2, peerID, 1)}}}
		}, cli.OK, `"policy": "rr"`},
		{"resolve unknown", "resolve p", func(asap.Message) []appender {
			return []appender{&asap.HandleResolutionResponse{Handle: "p", Error: unknown}}
		}, cli.NotFound, "pool p: Unknown Pool Handle"},
		{"resolve refused", "resolve p", func(asap.Message) []appender {
			return []appender{&asap.HandleResolutionResponse{Handle: "p", Error: security}}
		}, cli.Failed, "security"},
		{"resolve without answer", "resolve p", func(asap.Message) []appender { return nil }, cli.TimedOut, "answer to"},
		{"error report", "resolve p", func(asap.Message) []appender {
			return []appender{&asap.Error{Causes: param.OperationError{{Code: param.CauseUnrecognizedMessage}}}}
		}, cli.Failed, "the registrar reports: Unrecognized Message"},
		{"handle too long for rsplib", "resolve --compat rsplib " + strings.Repeat("x", 33), nil, cli.Usage, "32 at most"},
		{"register", "register p -t tcp://192.0.2.1:80 --id 5 --life 90s --compat rsplib --no-headers", func(m asap.Message) []appender {
			r := m.(*asap.Registration)
			if r.Element.Life != 90000 || r.Element.ID != 5 || r.Element.User.Port != 80 {
				return []appender{&asap.Error{}}
			}
			return []appender{keepAlive, &asap.RegistrationResponse{Handle: "p", ID: 5}}
		}, cli.OK, "0x00000005  active  0x00000000  tcp://192.0.2.1:80  rr\n"},
		{"register refused", "register p -t tcp://192.0.2.1:80 --id 5", func(asap.Message) []appender {
			return []appender{&asap.RegistrationResponse{Reject: true, Handle: "p", ID: 5, Error: param.OperationError{{Code: param.CauseInvalidValues}}}}
		}, cli.Failed, "registration refused: Invalid Values (by ASAP a registrar takes addresses of the association only"},
		{"deregister", "deregister p 5 --no-headers", func(m asap.Message) []appender {
			return []appender{&asap.DeregistrationResponse{Handle: "p", ID: m.(*asap.Deregistration).ID}}
		}, cli.OK, "p  0x00000005\n"},
		{"deregister refused", "deregister p 5", func(asap.Message) []appender {
			return []appender{&asap.DeregistrationResponse{Handle: "p", ID: 5, Error: security}}
		}, cli.Failed, "(by ASAP a registrar lets only the element's own host remove it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				l.asapPeer(test.handler)
				code, stdout, stderr := l.rspctl(strings.Fields(test.args)...)
				if code != test.code || !strings.Contains(stdout+stderr, test.want) {
					t.Errorf("exit %d, %s%s, want %d, %s", code, stdout, stderr, test.code, test.want)
				}
			})
		})
	}
}
