package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/cmd/internal/cli"
	"rserpool/enrp"
	"rserpool/enrp/table"
	"rserpool/registrar/admin"
)

var (
	// errUnreachable: no association to the registrar.
	errUnreachable = errors.New("registrar not reachable")
	// errNotFound: the registrar knows no such pool or element.
	errNotFound = errors.New("not found")
)

// refusal is a negative ASAP answer.
type refusal struct {
	what   string
	causes param.OperationError
	hint   string
}

func (e *refusal) Error() string {
	text := e.what
	if len(e.causes) > 0 {
		text += ": " + e.causes.String()
	}
	return text + e.hint
}

// Is says that an unknown pool handle is errNotFound.
func (e *refusal) Is(target error) bool {
	return target == errNotFound && e.causes.Has(param.CauseUnknownPoolHandle)
}

// foreign is a registrar of which nothing but the protocols of the RFCs is
// expected. Each call makes an association of its own and ends it.
type foreign struct {
	networks *transport.Networks
	enrp     *transport.Networks // for ENRP
	endpoint transport.Endpoint  // port 0: the usual one of each protocol
	rsplib   bool
	timeout  time.Duration // of each look of Watch
	interval time.Duration // between looks of Watch
	// id is the identifier for ENRP, one per process so that repeated looks
	// leave one name behind and not many.
	id param.RegistrarID
}

func newForeign(networks *transport.Networks, e transport.Endpoint, rsplib bool, timeout time.Duration) *foreign {
	return &foreign{networks: networks, enrp: networks, endpoint: e, rsplib: rsplib, timeout: timeout, id: param.RegistrarID(rand.Uint32() | 1)}
}

// Close does nothing: nothing outlives a call.
func (f *foreign) Close() {}

func (f *foreign) dial(ctx context.Context, port uint16, ppid uint32) (transport.Conn, error) {
	e := f.endpoint
	if e.Port == 0 {
		e.Port = port
	}
	networks := f.networks
	if ppid == transport.PPIDENRP {
		networks = f.enrp
	}
	conn, err := networks.Dial(ctx, nil, e, transport.Options{DefaultPPID: ppid})
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%v: %w", e, context.Cause(ctx))
		}
		return nil, fmt.Errorf("%w: %w", errUnreachable, err)
	}
	return conn, nil
}

// receive waits for the next message; an association that ends is an error.
func receive(ctx context.Context, conn transport.Conn, buf []byte, ppid uint32) ([]byte, error) {
	for {
		m, err := conn.Receive(ctx, buf)
		switch {
		case errors.Is(err, io.EOF):
			return nil, errors.New("the registrar closed the association")
		case err != nil:
			return nil, err
		case m.PPID == 0 || m.PPID == ppid:
			return m.Data, nil
		}
	}
}

// readTable reads the handle table by ENRP.
func (f *foreign) readTable(ctx context.Context) (table.Table, error) {
	conn, err := f.dial(ctx, enrp.Port, transport.PPIDENRP)
	if err != nil {
		return table.Table{}, err
	}
	defer conn.Close()
	reader, err := table.New(table.Config{Server: introduction(f.id, conn)}, time.Now())
	if err != nil {
		return table.Table{}, err
	}
	buf := make([]byte, transport.MaxMessage)
	for !reader.Done() {
		if err := sendENRP(ctx, conn, reader.Ready()); err != nil {
			return table.Table{}, err
		}
		wait, cancel := context.WithDeadline(ctx, reader.Deadline())
		data, err := receive(wait, conn, buf, transport.PPIDENRP)
		expired := wait.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case err == nil:
			m, _, err := enrp.Decode(data)
			if err != nil {
				reader.Broken(err)
				continue
			}
			reader.Step(m, time.Now())
		case expired:
			reader.Tick(time.Now())
		default:
			return table.Table{}, fmt.Errorf("read the handle table: %w", err)
		}
	}
	t, err := reader.Result()
	if f.rsplib {
		for _, pool := range t.Pools {
			for i := range pool.Elements {
				pool.Elements[i].Life = secondsFromRsplib(pool.Elements[i].Life)
			}
		}
	}
	return t, err
}

func sendENRP(ctx context.Context, conn transport.Conn, messages []enrp.Message) error {
	var out []transport.Message
	for _, m := range messages {
		data, err := m.Append(nil)
		if err != nil {
			return err
		}
		out = append(out, transport.Message{Data: data, PPID: transport.PPIDENRP})
	}
	if len(out) == 0 {
		return nil
	}
	return conn.Send(ctx, out...)
}

// introduction describes this end of the association as a registrar's would be:
// the registrar asked looks for the association's own address and port there.
// Link-local addresses mean nothing to others, loopback ones nothing to other
// hosts; they stay only if there is nothing else.
func introduction(id param.RegistrarID, conn transport.Conn) param.ServerInformation {
	t := param.Transport{Type: param.TypeSCTPTransport}
	var rest []netip.Addr
	for _, ap := range conn.LocalAddrs() {
		a := ap.Addr().Unmap().WithZone("")
		t.Port = ap.Port()
		if a.IsLinkLocalUnicast() || a.IsLoopback() {
			rest = append(rest, a)
		} else {
			t.Addrs = append(t.Addrs, a)
		}
	}
	if len(t.Addrs) == 0 {
		t.Addrs = rest
	}
	if conn.Network() == transport.TCP {
		t.Type, t.Addrs = param.TypeTCPTransport, t.Addrs[:1:1]
	}
	return param.ServerInformation{ID: id, Transport: t}
}

// rsplib has milliseconds where the RFC has seconds, unsigned and without a
// value for "infinite" (its largest is 49 days).
func secondsFromRsplib(l param.Life) param.Life {
	return param.Life((uint64(uint32(l)) + 999) / 1000)
}

func rsplibFromSeconds(l param.Life) param.Life {
	if l == param.InfiniteLife {
		return l
	}
	return param.Life(uint32(min(uint64(l)*1000, 0xffffffff)))
}

// ask sends one ASAP message about a pool and waits until accept takes the answer.
func (f *foreign) ask(ctx context.Context, h param.PoolHandle, m asap.Message, accept func(asap.Message) bool) error {
	if f.rsplib && len(h) > param.RsplibMaxHandle {
		return cli.Exitf(cli.Usage, "pool handle of %d octets: rsplib takes %d at most", len(h), param.RsplibMaxHandle)
	}
	data, err := m.Append(nil)
	if err != nil {
		return err
	}
	conn, err := f.dial(ctx, asap.Port, transport.PPIDASAP)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Send(ctx, transport.Message{Data: data, PPID: transport.PPIDASAP}); err != nil {
		return fmt.Errorf("send %v: %w", m.Type(), err)
	}
	buf := make([]byte, transport.MaxMessage)
	for {
		data, err := receive(ctx, conn, buf, transport.PPIDASAP)
		if err != nil {
			return fmt.Errorf("answer to %v: %w", m.Type(), err)
		}
		answer, _, err := asap.Decode(data)
		if err != nil {
			return fmt.Errorf("answer to %v: %w", m.Type(), err)
		}
		if report, ok := answer.(*asap.Error); ok {
			return &refusal{what: "the registrar reports", causes: report.Causes}
		}
		if accept(answer) {
			return nil
		}
	}
}

// Resolve resolves a pool handle by ASAP.
func (f *foreign) Resolve(ctx context.Context, h param.PoolHandle, items uint32) (admin.Resolution, error) {
	var answer *asap.HandleResolutionResponse
	err := f.ask(ctx, h, &asap.HandleResolution{Handle: h, Items: items}, func(m asap.Message) bool {
		r, ok := m.(*asap.HandleResolutionResponse)
		answer = r
		return ok && r.Handle == h
	})
	if err != nil {
		return admin.Resolution{}, err
	}
	if len(answer.Error) > 0 {
		return admin.Resolution{}, &refusal{what: "pool " + admin.EscapeHandle(h), causes: answer.Error}
	}
	policy := answer.Policy.Type
	if policy == 0 {
		policy = param.RoundRobin // RFC 5352, section 2.2.6: an absent policy
	}
	r := admin.Resolution{Handle: admin.EscapeHandle(h), Policy: admin.PolicyName(policy)}
	for _, e := range answer.Elements {
		if f.rsplib {
			e.Life = secondsFromRsplib(e.Life)
		}
		r.Elements = append(r.Elements, showElement(h, e))
	}
	return r, nil
}

// Register registers an element by ASAP.
func (f *foreign) Register(ctx context.Context, h param.PoolHandle, e param.PoolElement) (admin.Element, error) {
	if e.ID == 0 {
		e.ID = param.PEID(rand.Uint32() | 1)
	}
	sent := e
	if f.rsplib {
		sent.Life = rsplibFromSeconds(e.Life)
	}
	var answer *asap.RegistrationResponse
	err := f.ask(ctx, h, &asap.Registration{Handle: h, Element: sent}, func(m asap.Message) bool {
		r, ok := m.(*asap.RegistrationResponse)
		answer = r
		return ok && r.Handle == h && r.ID == e.ID
	})
	if err != nil {
		return admin.Element{}, err
	}
	if answer.Reject || f.rsplib && len(answer.Error) > 0 {
		return admin.Element{}, &refusal{
			what: "registration refused", causes: answer.Error,
			hint: " (by ASAP a registrar takes addresses of the association only; on the element's host rsppe can do it)",
		}
	}
	return showElement(h, e), nil
}

// Deregister deregisters an element by ASAP.
func (f *foreign) Deregister(ctx context.Context, h param.PoolHandle, id param.PEID) error {
	var answer *asap.DeregistrationResponse
	err := f.ask(ctx, h, &asap.Deregistration{Handle: h, ID: id}, func(m asap.Message) bool {
		r, ok := m.(*asap.DeregistrationResponse)
		answer = r
		return ok && r.Handle == h && r.ID == id
	})
	if err != nil {
		return err
	}
	if len(answer.Error) > 0 {
		return &refusal{
			what: "deregistration refused", causes: answer.Error,
			hint: " (by ASAP a registrar lets only the element's own host remove it; use the admin API, or run rspctl there)",
		}
	}
	return nil
}
