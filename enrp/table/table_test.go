package table

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/enrp"
)

const (
	self      param.RegistrarID = 0x5e1f
	registrar param.RegistrarID = 0x11111111
	peer      param.RegistrarID = 0x22222222
)

var start = time.Unix(1000, 0)

func server(id param.RegistrarID) param.ServerInformation {
	return param.ServerInformation{ID: id, Transport: param.Transport{
		Type: param.TypeSCTPTransport, Port: 9901, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}
}

func newReader(t *testing.T, cfg Config) *Reader {
	t.Helper()
	cfg.Server = server(self)
	r, err := New(cfg, start)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// ready shows the messages to be sent in short.
func ready(r *Reader) string {
	var out []string
	for _, m := range r.Ready() {
		text := fmt.Sprintf("%v>%x", m.Type(), uint32(m.IDs().Receiver))
		switch m := m.(type) {
		case *enrp.Presence:
			text += fmt.Sprintf(" R=%t cs=%04x %x", m.ReplyRequired, m.Checksum, uint32(m.Server.ID))
		case *enrp.HandleTableRequest:
			text += fmt.Sprintf(" W=%t", m.OwnOnly)
		}
		out = append(out, strings.TrimPrefix(text, "ENRP_"))
	}
	return strings.ReplaceAll(strings.Join(out, "; "), "ENRP_", "")
}

func from(sender param.RegistrarID) enrp.Servers {
	return enrp.Servers{Sender: sender, Receiver: self}
}

func pool(h string, ids ...param.PEID) enrp.Pool {
	p := enrp.Pool{Handle: param.PoolHandle(h)}
	for _, id := range ids {
		p.Elements = append(p.Elements, param.PoolElement{ID: id, Home: registrar})
	}
	return p
}

func show(t Table) string {
	var out []string
	for _, p := range t.Pools {
		s := string(p.Handle)
		for _, e := range p.Elements {
			s += fmt.Sprintf(" %d", e.ID)
		}
		out = append(out, s)
	}
	for _, s := range t.Registrars {
		out = append(out, fmt.Sprintf("%x", uint32(s.ID)))
	}
	return strings.Join(out, ", ")
}

func expect(t *testing.T, r *Reader, want string) {
	t.Helper()
	if got := ready(r); got != want {
		t.Fatalf("sends\n%s, want\n%s", got, want)
	}
}

const (
	introduction = "PRESENCE>0 R=true cs=ffff 5e1f; LIST_REQUEST>0"
	ask          = "PRESENCE>11111111 R=false cs=ffff 5e1f; HANDLE_TABLE_REQUEST>11111111 W=false"
)

func TestReadsPagesWithRepeatedHandles(t *testing.T) {
	r := newReader(t, Config{})
	expect(t, r, introduction)
	r.Step(&enrp.Presence{Servers: from(registrar), Server: server(registrar)}, start)
	expect(t, r, "")
	r.Step(&enrp.ListResponse{Servers: from(registrar), Peers: []param.ServerInformation{server(peer), server(self)}}, start)
	expect(t, r, ask)
	// The handle comes again for each element, in one message and over pages,
	// and one element twice.
	r.Step(&enrp.HandleTableResponse{Servers: from(registrar), More: true, Pools: []enrp.Pool{pool("b", 2), pool("b", 1), pool("a", 9)}}, start)
	expect(t, r, ask)
	if _, err := r.Result(); !errors.Is(err, ErrUnfinished) || r.Done() {
		t.Errorf("done too early: %v", err)
	}
	again := pool("b", 2, 3)
	again.Elements[0].Home = peer
	r.Step(&enrp.HandleTableResponse{Servers: from(registrar), Pools: []enrp.Pool{again}}, start)
	expect(t, r, "")
	table, err := r.Result()
	if err != nil || !r.Done() {
		t.Fatal(err)
	}
	if got, want := show(table), "a 9, b 1 2 3, 11111111, 22222222"; got != want {
		t.Errorf("table %s, want %s", got, want)
	}
	if table.Registrar != registrar || table.Pools[1].Elements[1].Home != peer {
		t.Errorf("table %+v", table)
	}
}

func TestAMB_40_EmptyTableIsComplete(t *testing.T) {
	r := newReader(t, Config{OwnOnly: true})
	ready(r)
	r.Step(&enrp.ListResponse{Servers: from(registrar)}, start)
	expect(t, r, strings.ReplaceAll(ask, "W=false", "W=true"))
	r.Step(&enrp.HandleTableResponse{Servers: from(registrar)}, start)
	if table, err := r.Result(); err != nil || show(table) != "" {
		t.Errorf("%v, %v", table, err)
	}
}

// A guest has no say: whatever registrars ask of their peers, it answers nothing.
func TestAnswersNothing(t *testing.T) {
	r := newReader(t, Config{})
	ready(r)
	for _, m := range []enrp.Message{
		&enrp.Presence{Servers: from(registrar), ReplyRequired: true},
		&enrp.ListRequest{Servers: from(registrar)},
		&enrp.HandleTableRequest{Servers: from(registrar)},
		&enrp.InitTakeover{Servers: from(registrar), Target: peer},
		&enrp.InitTakeover{Servers: from(registrar), Target: self},
		&enrp.TakeoverServer{Servers: from(registrar), Target: peer},
		&enrp.HandleUpdate{Servers: from(registrar), Handle: "p"},
		&enrp.HandleTableResponse{Servers: from(registrar)}, // not asked for yet
	} {
		r.Step(m, start)
		if got := ready(r); got != "" || r.Done() {
			t.Errorf("%v: sends %q, done %t", m.Type(), got, r.Done())
		}
	}
}

func TestAMB_48_MessagesForOthersAndFromOthersAreDropped(t *testing.T) {
	r := newReader(t, Config{})
	ready(r)
	for _, ids := range []enrp.Servers{{Sender: 0, Receiver: self}, {Sender: self, Receiver: self}, {Sender: registrar, Receiver: peer}} {
		r.Step(&enrp.ListResponse{Servers: ids}, start)
	}
	expect(t, r, "")
	r.Step(&enrp.Presence{Servers: enrp.Servers{Sender: registrar}}, start)
	r.Step(&enrp.ListResponse{Servers: from(peer)}, start)
	expect(t, r, "")
	r.Step(&enrp.ListResponse{Servers: enrp.Servers{Sender: registrar}}, start)
	expect(t, r, ask)
}

func TestRejectionIsTriedAgainFromTheBeginning(t *testing.T) {
	r := newReader(t, Config{Pause: time.Second, Attempts: 3})
	ready(r)
	r.Step(&enrp.ListResponse{Servers: from(registrar)}, start)
	r.Step(&enrp.HandleTableResponse{Servers: from(registrar), More: true, Pools: []enrp.Pool{pool("gone", 1)}}, start)
	ready(r)
	r.Step(&enrp.HandleTableResponse{Servers: from(registrar), Reject: true}, start)
	expect(t, r, "")
	now := start.Add(time.Second)
	if r.Deadline() != now {
		t.Fatalf("deadline %v, want %v", r.Deadline(), now)
	}
	r.Tick(now.Add(-1))
	expect(t, r, "")
	r.Tick(now)
	expect(t, r, strings.ReplaceAll(introduction, ">0", ">11111111"))
	r.Step(&enrp.ListResponse{Servers: from(registrar), Reject: true}, now)
	now = now.Add(time.Second)
	r.Tick(now)
	ready(r)
	r.Step(&enrp.ListResponse{Servers: from(registrar)}, now)
	ready(r)
	t.Run("and may succeed", func(t *testing.T) {
		r := *r
		r.Step(&enrp.HandleTableResponse{Servers: from(registrar), Pools: []enrp.Pool{pool("a", 1)}}, now)
		if table, err := r.Result(); err != nil || show(table) != "a 1" {
			t.Errorf("%v, %v", table, err)
		}
	})
	t.Run("or fails in the end", func(t *testing.T) {
		r := *r
		r.Step(&enrp.HandleTableResponse{Servers: from(registrar), Reject: true}, now)
		if _, err := r.Result(); !errors.Is(err, ErrRejected) || !r.Done() {
			t.Error(err)
		}
	})
}

func TestSilence(t *testing.T) {
	r := newReader(t, Config{})
	if r.Deadline() != start.Add(5*time.Second) {
		t.Errorf("MAX-TIME-NO-RESPONSE is %v", r.Deadline().Sub(start))
	}
	r.Step(&enrp.Presence{Servers: from(registrar)}, start.Add(4*time.Second)) // no answer
	r.Tick(start.Add(5*time.Second - 1))
	if r.Done() {
		t.Fatal("gave up too early")
	}
	r.Broken(errors.New("odd octets"))
	r.Tick(start.Add(5 * time.Second))
	if _, err := r.Result(); !errors.Is(err, ErrSilent) || !strings.Contains(err.Error(), "odd octets") {
		t.Error(err)
	}
	if got := ready(r); got != "" {
		t.Errorf("still sends %s", got)
	}
}

func TestErrorReportEndsIt(t *testing.T) {
	r := newReader(t, Config{})
	r.Step(&enrp.Error{Servers: from(registrar), Causes: param.OperationError{{Code: 0xf006}}}, start)
	var report *ErrorReport
	if _, err := r.Result(); !errors.As(err, &report) || !strings.Contains(err.Error(), "0xf006") {
		t.Error(err)
	}
}

func TestEndlessTableIsRefused(t *testing.T) {
	for name, page := range map[string][]enrp.Pool{"repeated": {pool("a", 1, 2)}, "empty": nil} {
		t.Run(name, func(t *testing.T) {
			r := newReader(t, Config{MaxElements: 100})
			r.Step(&enrp.ListResponse{Servers: from(registrar)}, start)
			for n := 0; !r.Done(); n++ {
				if n > 100 {
					t.Fatal("goes on for ever")
				}
				r.Step(&enrp.HandleTableResponse{Servers: from(registrar), More: true, Pools: page}, start)
			}
			if _, err := r.Result(); !errors.Is(err, ErrTooLarge) {
				t.Error(err)
			}
		})
	}
}

func TestConfigProblemsAreNamedAtOnce(t *testing.T) {
	_, err := New(Config{Attempts: -1}, start)
	for _, want := range []string{"identifier", "transport", "negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
