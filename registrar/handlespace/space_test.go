package handlespace

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"rserpool/asap/param"
	"rserpool/selection"
)

const (
	here      = param.RegistrarID(0x0a0a0a0a)
	there     = param.RegistrarID(0x0b0b0b0b)
	elsewhere = param.RegistrarID(0x0c0c0c0c) // outside the ring
)

var start = time.UnixMilli(1_700_000_000_000)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

func transport(typ param.Type, addr string, port uint16) param.Transport {
	return param.Transport{Type: typ, Port: port, Addrs: []netip.Addr{netip.MustParseAddr(addr)}}
}

// change alters a registration made by register.
type change func(*Register)

// register is a registration at a time; without changes the element is a TCP
// server under Round Robin with 300 s of life.
func register(handle param.PoolHandle, id param.PEID, now time.Time, changes ...change) Register {
	c := Register{
		Handle: handle,
		Element: param.PoolElement{
			ID:     id,
			Home:   here,
			Life:   300,
			User:   transport(param.TypeTCPTransport, "192.0.2.1", 7),
			Policy: param.Policy{Type: param.RoundRobin},
			ASAP:   transport(param.TypeSCTPTransport, "192.0.2.1", 5001),
		},
		Raiser:      here,
		Incarnation: 1,
		Now:         now,
	}
	for _, f := range changes {
		f(&c)
	}
	return c
}

func policy(p param.Policy) change         { return func(c *Register) { c.Element.Policy = p } }
func user(t param.Transport) change        { return func(c *Register) { c.Element.User = t } }
func life(l param.Life) change             { return func(c *Register) { c.Element.Life = l } }
func home(id param.RegistrarID) change     { return func(c *Register) { c.Element.Home = id } }
func owner(name string) change             { return func(c *Register) { c.Owner = name } }
func conflict(g Generation) change         { return func(c *Register) { c.Conflict = g } }
func space(cfg Config) *Space              { cfg.Rand = rand.New(rand.NewPCG(1, 2)); return New(cfg) }
func fresh() *Space                        { return space(Config{}) }
func with(t param.PolicyType) param.Policy { return param.Policy{Type: t} }
func weight(n uint32) param.Policy         { return param.Policy{Type: param.WeightedRandom, Weight: n} }
func registered(e []Event) *Record         { return e[0].(Registered).Record }
func resolve(s *Space, q Query) []*Record  { r, _, _ := s.Resolve(nil, "echo", q); return r }
func elements(s *Space) []*Record          { return s.Elements(nil, "echo", 0, 1<<30) }
func remove(r *Record, c RemovalCause, now time.Time) Remove {
	return Remove{Handle: r.Handle, ID: r.ID, Generation: r.Generation, Cause: c, Now: now}
}

// one applies a command that must give exactly one event, of type E.
func one[E Event](t *testing.T, s *Space, c Command) E {
	t.Helper()
	events := s.Apply(c)
	if len(events) == 1 {
		if e, ok := events[0].(E); ok {
			return e
		}
	}
	t.Fatalf("%T gave %#v", c, events)
	panic("unreachable")
}

func none(t *testing.T, s *Space, c Command) {
	t.Helper()
	if events := s.Apply(c); len(events) != 0 {
		t.Fatalf("%T gave %#v, want nothing", c, events)
	}
}

// rejects checks that a registration is refused with these causes and that
// nothing changes by it.
func rejects(t *testing.T, s *Space, c Command, want ...param.Cause) {
	t.Helper()
	before := state(s)
	got := one[Rejected](t, s, c).Causes
	if !slices.EqualFunc(got, want, func(a, b param.Cause) bool { return a.Code == b.Code && bytes.Equal(a.Data, b.Data) }) {
		t.Errorf("causes %x, want %x", got, want)
	}
	if after := state(s); after != before {
		t.Errorf("changed from\n%s to\n%s", before, after)
	}
}

// state writes down everything that the commands determine.
func state(s *Space) string {
	var b strings.Builder
	for _, p := range s.Pools(nil, "", 1<<30) {
		fmt.Fprintf(&b, "%+v\n", p)
		for _, r := range s.Elements(nil, p.Handle, 0, 1<<30) {
			fmt.Fprintf(&b, "  %+v\n", *r)
		}
	}
	homes := s.Homes()
	slices.SortFunc(homes, func(a, b Home) int { return int(int64(a.ID) - int64(b.ID)) })
	for _, h := range homes {
		next, ok := s.NextDeadline(h.ID)
		fmt.Fprintf(&b, "%v: %d elements, 0x%04x, next %v %v\n", h.ID, h.Elements, h.Checksum(), next, ok)
		for _, r := range s.Owned(nil, h.ID, Key{}, 1<<30) {
			fmt.Fprintf(&b, "  %v\n", r.Key())
		}
	}
	d := s.Digest()
	fmt.Fprintf(&b, "%+v marks %+v owners %v digest %x\n", s.Counts(), s.marks, s.owners, d.Sum())
	return b.String()
}

func TestASAP_3_1_24_UnknownHandleCreatesPool(t *testing.T) {
	s := fresh()
	if _, ok := s.Pool("echo"); ok {
		t.Fatal("there is a pool before any registration")
	}
	e := one[Registered](t, s, register("echo", 1, at(0)))
	if !e.PoolCreated || e.Previous != nil || e.Record.ID != 1 {
		t.Errorf("%+v", e)
	}
	if p, ok := s.Pool("echo"); !ok || p.Elements != 1 || !p.Created.Equal(at(0)) {
		t.Errorf("%+v, %v", p, ok)
	}
	if c := s.Counts(); c != (Counts{Pools: 1, Elements: 1}) {
		t.Errorf("%+v", c)
	}
}

func TestASAP_3_1_25_FirstElementFixesThePool(t *testing.T) {
	s := fresh()
	sctp := transport(param.TypeSCTPTransport, "192.0.2.1", 7)
	sctp.Use = param.DataAndControl
	s.Apply(register("echo", 1, at(0), policy(weight(3)), user(sctp)))
	p, _ := s.Pool("echo")
	if p.Policy != param.WeightedRandom || p.Transport != param.TypeSCTPTransport || p.Use != param.DataAndControl {
		t.Errorf("%+v", p)
	}
	t.Run("for as long as the pool lasts", func(t *testing.T) {
		s.Apply(register("echo", 2, at(0), policy(weight(0)), user(sctp)))
		one[Removed](t, s, Deregister{Handle: "echo", ID: 1})
		if q, _ := s.Pool("echo"); q.Policy != p.Policy || q.Transport != p.Transport || q.Use != p.Use {
			t.Errorf("%+v", q)
		}
		if e := one[Removed](t, s, Deregister{Handle: "echo", ID: 2}); !e.PoolRemoved {
			t.Errorf("%+v", e)
		}
		if e := one[Registered](t, s, register("echo", 2, at(0))); !e.PoolCreated {
			t.Errorf("%+v", e)
		}
	})
}

func TestASAP_3_1_26_NewIdentifierIsAdded(t *testing.T) {
	s := fresh()
	s.Apply(register("echo", 2, at(0)))
	if e := one[Registered](t, s, register("echo", 1, at(1))); e.PoolCreated || e.Previous != nil {
		t.Errorf("%+v", e)
	}
	if r := elements(s); len(r) != 2 || r[0].ID != 1 || r[1].ID != 2 {
		t.Errorf("%v", r)
	}
}

// The three checks, alone and together, with the data of their causes.
func TestASAP_3_1_27_DifferencesToThePoolAreRejected(t *testing.T) {
	s := fresh()
	founder := transport(param.TypeTCPTransport, "192.0.2.1", 7)
	s.Apply(register("echo", 1, at(0), policy(weight(9)), user(founder)))
	policyCause := param.PolicyCause(param.CauseInconsistentPolicy, weight(1)) // AMB-56
	typeCause := param.TransportCause(param.CauseInconsistentTransport, founder)
	useCause := param.NewCause(param.CauseInconsistentControl)
	sctp := transport(param.TypeSCTPTransport, "192.0.2.2", 8)
	control := sctp
	control.Use = param.DataAndControl

	rejects(t, s, register("echo", 2, at(1)), policyCause)
	rejects(t, s, register("echo", 2, at(1), policy(weight(1)), user(sctp)), typeCause)
	rejects(t, s, register("echo", 2, at(1), policy(weight(1)), user(control)), typeCause, useCause)
	rejects(t, s, register("echo", 2, at(1), user(control)), policyCause, typeCause, useCause)
	one[Registered](t, s, register("echo", 2, at(1), policy(weight(0)),
		user(transport(param.TypeTCPTransport, "2001:db8::1", 9)), life(7)))

	t.Run("transport use alone", func(t *testing.T) {
		s := fresh()
		s.Apply(register("echo", 1, at(0), user(control)))
		rejects(t, s, register("echo", 2, at(1), user(sctp)), useCause)
	})
}

func TestAMB_34_CauseQuotesTheFirstElementsTransport(t *testing.T) {
	s := fresh()
	s.Apply(register("echo", 7, at(0), user(transport(param.TypeTCPTransport, "192.0.2.7", 7))))
	s.Apply(register("echo", 1, at(0), user(transport(param.TypeTCPTransport, "192.0.2.1", 1))))
	other := user(transport(param.TypeUDPTransport, "192.0.2.9", 9))
	quoted := func(addr string, port uint16) param.Cause {
		return param.TransportCause(param.CauseInconsistentTransport, transport(param.TypeTCPTransport, addr, port))
	}
	rejects(t, s, register("echo", 2, at(0), other), quoted("192.0.2.7", 7))
	t.Run("as it is now", func(t *testing.T) {
		s.Apply(register("echo", 7, at(0), user(transport(param.TypeTCPTransport, "192.0.2.77", 77))))
		rejects(t, s, register("echo", 2, at(0), other), quoted("192.0.2.77", 77))
	})
}

func TestAMB_56_CauseQuotesANeutralPolicy(t *testing.T) {
	for _, d := range selection.All() {
		s := fresh()
		values := param.Policy{Type: d.Type, Weight: 5, Priority: 5, Load: 5, Degradation: 5}
		s.Apply(register("echo", 1, at(0), policy(values)))
		other := with(param.RoundRobin)
		if d.Type == other.Type {
			other = with(param.Random)
		}
		rejects(t, s, register("echo", 2, at(0), policy(other)),
			param.PolicyCause(param.CauseInconsistentPolicy, selection.Neutral(d.Type)))
		if _, p, _ := s.Resolve(nil, "echo", Query{}); p != selection.Neutral(d.Type) {
			t.Errorf("resolution with policy %+v", p)
		}
	}
}

func TestASAP_3_1_28_SameIdentifierIsAReregistration(t *testing.T) {
	s := fresh()
	first := registered(s.Apply(register("echo", 1, at(0))))
	e := one[Registered](t, s, register("echo", 1, at(10)))
	if e.PoolCreated || e.Previous != first {
		t.Errorf("%+v", e)
	}
	if p, _ := s.Pool("echo"); p.Elements != 1 {
		t.Errorf("%+v", p)
	}
	if r := e.Record; !r.Registered().Equal(at(0)) || !r.Refreshed.Equal(at(10)) || !r.Expires().Equal(at(310)) {
		t.Errorf("%+v", r)
	}
	t.Run("the same identifier in another pool is another element", func(t *testing.T) {
		if e := one[Registered](t, s, register("chat", 1, at(10))); e.Previous != nil {
			t.Errorf("%+v", e)
		}
	})
}

func TestAMB_09_LivingElementKeepsItsIdentifier(t *testing.T) {
	s := fresh()
	stored := registered(s.Apply(register("echo", 1, at(0))))
	rejects(t, s, register("echo", 1, at(1), conflict(stored.Generation)), param.NewCause(param.CauseNonUniquePEID))
	t.Run("but only that very element", func(t *testing.T) {
		later := registered(s.Apply(register("echo", 1, at(2))))
		now := one[Registered](t, s, register("echo", 1, at(3), conflict(stored.Generation))).Record
		one[Removed](t, s, Deregister{Handle: "echo", ID: 1, Now: at(3)})
		one[Registered](t, s, register("echo", 1, at(3), conflict(now.Generation)))
		if later.Generation == now.Generation {
			t.Errorf("generation %+v twice", now.Generation)
		}
	})
}

func TestASAP_3_1_29_ReregistrationIsChecked(t *testing.T) {
	s := fresh()
	one[Registered](t, s, register("echo", 1, at(0)))
	one[Registered](t, s, register("echo", 2, at(0)))
	rejects(t, s, register("echo", 1, at(1), policy(with(param.Random))),
		param.PolicyCause(param.CauseInconsistentPolicy, with(param.RoundRobin)))
}

func TestAMB_29_OnlyElementCannotChangeThePolicyType(t *testing.T) {
	s := fresh()
	one[Registered](t, s, register("echo", 1, at(0)))
	rejects(t, s, register("echo", 1, at(1), policy(with(param.Random))),
		param.PolicyCause(param.CauseInconsistentPolicy, with(param.RoundRobin)))
	one[Removed](t, s, Deregister{Handle: "echo", ID: 1, Now: at(2)})
	one[Registered](t, s, register("echo", 1, at(3), policy(with(param.Random))))
}

func TestASAP_3_1_30_ReregistrationReplacesAttributes(t *testing.T) {
	s := fresh()
	s.Apply(register("echo", 1, at(0), policy(weight(1))))
	next := register("echo", 1, at(1), policy(weight(7)), life(20), home(there),
		user(transport(param.TypeTCPTransport, "192.0.2.9", 99)))
	next.Element.ASAP = transport(param.TypeSCTPTransport, "192.0.2.9", 5009)
	s.Apply(next)
	r := s.Get("echo", 1)
	if fmt.Sprint(r.Element()) != fmt.Sprint(next.Element) || fmt.Sprint(r.ASAP()) != fmt.Sprint(next.Element.ASAP) || !r.Expires().Equal(at(21)) {
		t.Errorf("%+v", r)
	}
	next.Element.ASAP, next.Now = param.Transport{}, at(1)
	if again := registered(s.Apply(next)); again.HasASAP() || !again.ASAP().IsZero() {
		t.Errorf("ASAP transport %v of an element without", again.ASAP())
	}
	r = s.Get("echo", 1)
	want, err := param.AppendPoolElement(nil, &next.Element, false)
	if err != nil || !bytes.Equal(r.Encoded(), want) {
		t.Errorf("encoded %x, want %x, %v", r.Encoded(), want, err)
	}
	if got := resolve(s, Query{}); len(got) != 1 || got[0] != r {
		t.Errorf("resolution gives %v, stored is %v", got, r)
	}
	t.Run("and the values that selection uses", func(t *testing.T) {
		s := fresh()
		for id := range param.PEID(3) {
			s.Apply(register("echo", id+1, at(0), policy(param.Policy{Type: param.LeastUsed, Load: uint32(id)})))
		}
		s.Apply(register("echo", 1, at(1), policy(param.Policy{Type: param.LeastUsed, Load: 10})))
		if got := ids(resolve(s, Query{})); got != "2 3 1" {
			t.Errorf("order %s", got)
		}
	})
}

func ids(records []*Record) string {
	var b []string
	for _, r := range records {
		b = append(b, fmt.Sprint(uint32(r.ID)))
	}
	return strings.Join(b, " ")
}

func TestASAP_3_1_31_RejectedReregistrationLeavesAll(t *testing.T) {
	s := fresh()
	stored := registered(s.Apply(register("echo", 1, at(0), home(there), policy(weight(3)))))
	rejects(t, s, register("echo", 1, at(100)), param.PolicyCause(param.CauseInconsistentPolicy, weight(1)))
	if s.Get("echo", 1) != stored {
		t.Error("another record is stored")
	}
	if next, _ := s.NextDeadline(there); !next.Equal(at(300)) {
		t.Errorf("expires at %v", next)
	}
}

func TestASAP_3_1_32_AcceptedRegistrationMovesTheHome(t *testing.T) {
	s := fresh()
	s.Apply(register("echo", 1, at(0), home(there)))
	s.Apply(register("echo", 1, at(1)))
	if s.Home(there).Elements != 0 || s.Home(here).Elements != 1 || len(s.Owned(nil, here, Key{}, 9)) != 1 {
		t.Errorf("homes %+v", s.Homes())
	}
	if _, ok := s.NextDeadline(there); ok {
		t.Error("the former home still has a deadline")
	}
}

func TestASAP_3_1_34_LackOfResources(t *testing.T) {
	full := param.NewCause(param.CauseLackOfResources)
	t.Run("pools", func(t *testing.T) {
		s := space(Config{MaxPools: 2})
		s.Apply(register("a", 1, at(0)))
		s.Apply(register("b", 1, at(0)))
		rejects(t, s, register("c", 1, at(0)), full)
		one[Registered](t, s, register("b", 2, at(0)))
		s.Apply(Deregister{Handle: "a", ID: 1})
		one[Registered](t, s, register("c", 1, at(0)))
	})
	t.Run("elements", func(t *testing.T) {
		s := space(Config{MaxElements: 2})
		s.Apply(register("a", 1, at(0)))
		s.Apply(register("b", 1, at(0)))
		rejects(t, s, register("b", 2, at(0)), full)
		rejects(t, s, register("c", 2, at(0)), full)
		one[Registered](t, s, register("b", 1, at(1)))
	})
	t.Run("elements of a pool", func(t *testing.T) {
		s := space(Config{MaxElementsPerPool: 2})
		s.Apply(register("a", 1, at(0)))
		s.Apply(register("a", 2, at(0)))
		rejects(t, s, register("a", 3, at(0)), full)
		one[Registered](t, s, register("a", 2, at(1)))
		one[Registered](t, s, register("b", 3, at(0)))
	})
	t.Run("a million pools from one client", func(t *testing.T) {
		s := space(Config{MaxPoolsPerOwner: 100})
		for i := range 1000 {
			s.Apply(register(param.PoolHandle(fmt.Sprintf("p%d", i)), 1, at(0), owner("192.0.2.66")))
		}
		if c := s.Counts(); c.Pools != 100 {
			t.Errorf("%+v", c)
		}
		rejects(t, s, register("p100", 1, at(0), owner("192.0.2.66")), full)
		one[Registered](t, s, register("p100", 1, at(0), owner("192.0.2.67")))
		one[Registered](t, s, register("p101", 1, at(0)))
		one[Registered](t, s, register("p100", 2, at(0), owner("192.0.2.66")))
		for i := range 100 {
			s.Apply(Deregister{Handle: param.PoolHandle(fmt.Sprintf("p%d", i)), ID: 1})
		}
		one[Registered](t, s, register("p999", 1, at(0), owner("192.0.2.66")))
		if len(s.owners) != 2 {
			t.Errorf("owners %v", s.owners)
		}
	})
}

func TestASAP_3_1_37_InvalidValuesAreQuoted(t *testing.T) {
	s := fresh()
	for name, c := range map[string]Register{
		"AMB_27_identifier 0": register("echo", 0, at(0)),
		"AMB_10_life 0":       register("echo", 1, at(0), life(0)),
		"AMB_10_life -2":      register("echo", 1, at(0), life(-2)),
		"AMB_71_empty handle": register("", 1, at(0)),
	} {
		t.Run(name, func(t *testing.T) {
			rejects(t, s, c, param.ElementCause(param.CauseInvalidValues, &c.Element))
		})
	}
	t.Run("an element that has no wire form", func(t *testing.T) {
		c := register("echo", 1, at(0), user(param.Transport{Type: param.TypeSCTPTransport}))
		rejects(t, s, c, param.ElementCause(param.CauseInvalidValues, &c.Element))
	})
}

// Whether a policy is known must not decide what a command does: members of a ring
// may be of different age. Who accepts registrations refuses it.
func TestAMB_55_UnknownPolicyIsServedByRoundRobin(t *testing.T) {
	s := fresh()
	unknown := param.Policy{Type: 0xb0002004, Data: "\x00\x00\x00\x01"}
	s.Apply(register("echo", 1, at(0), policy(unknown)))
	s.Apply(register("echo", 2, at(0), policy(unknown)))
	rejects(t, s, register("echo", 3, at(0)), param.PolicyCause(param.CauseInconsistentPolicy, param.Policy{Type: unknown.Type}))
	for _, want := range []param.PEID{1, 2, 1} {
		records, neutral, ok := s.Resolve(nil, "echo", Query{})
		if !ok || len(records) != 2 || records[0].ID != want || neutral.Type != unknown.Type || records[0].Element().Policy != unknown {
			t.Fatalf("%v, %+v, %v", records, neutral, ok)
		}
	}
}

func TestPOL_7_1_01_TypesWithoutNumberAreRefused(t *testing.T) {
	s := fresh()
	for _, typ := range []param.PolicyType{0, 0x40000000} {
		rejects(t, s, register("echo", 1, at(0), policy(with(typ))), param.PolicyCause(param.CauseInvalidValues, with(typ)))
	}
}

func TestASAP_3_1_40_LifetimePasses(t *testing.T) {
	s := fresh()
	s.Apply(register("echo", 1, at(0), life(20)))
	s.Apply(register("echo", 2, at(0), life(10)))
	s.Apply(register("echo", 3, at(0), life(param.InfiniteLife)))
	s.Apply(register("echo", 4, at(0), life(5), home(there)))
	if next, ok := s.NextDeadline(here); !ok || !next.Equal(at(10)) {
		t.Errorf("next deadline %v, %v", next, ok)
	}
	if due := s.Due(nil, here, at(9.999), 9); len(due) != 0 {
		t.Errorf("due too early: %v", due)
	}
	due := s.Due(nil, here, at(10), 9)
	if len(due) != 1 {
		t.Fatalf("due: %v", due)
	}
	if e := one[Removed](t, s, due[0]); e.Record.ID != 2 || e.Cause != Expired {
		t.Errorf("%+v", e)
	}
	t.Run("re-registration starts it again", func(t *testing.T) {
		stale := s.Due(nil, here, at(21), 9)
		s.Apply(register("echo", 1, at(19), life(20)))
		for _, c := range stale {
			none(t, s, c)
		}
		if next, _ := s.NextDeadline(here); !next.Equal(at(39)) {
			t.Errorf("next deadline %v", next)
		}
	})
	t.Run("AMB_76_only of the home's own elements", func(t *testing.T) {
		if due := s.Due(nil, there, at(1000), 9); len(due) != 1 || due[0].(Remove).ID != 4 {
			t.Errorf("due: %v", due)
		}
	})
	t.Run("infinite life never expires", func(t *testing.T) {
		for _, c := range s.Due(nil, here, at(1e9), 9) {
			one[Removed](t, s, c)
		}
		if _, ok := s.NextDeadline(here); ok || s.Get("echo", 3) == nil {
			t.Error("the element without end has an end")
		}
	})
	t.Run("no more than asked for", func(t *testing.T) {
		s := fresh()
		for id := range param.PEID(10) {
			s.Apply(register("echo", id+1, at(float64(10-id)), life(1)))
		}
		due := s.Due(nil, here, at(99), 3)
		if len(due) != 3 || due[0].(Remove).ID != 10 || due[2].(Remove).ID != 8 {
			t.Errorf("due: %v", due)
		}
	})
}

func TestElementSize(t *testing.T) {
	size := len(registered(fresh().Apply(register("echo", 1, at(0)))).Encoded())
	one[Registered](t, space(Config{MaxElementSize: size}), register("echo", 1, at(0)))
	s := space(Config{MaxElementSize: size - 1})
	rejects(t, s, register("echo", 1, at(0)), param.NewCause(param.CauseLackOfResources))
	if n := s.Counts().Pools; n != 0 {
		t.Errorf("%d pools", n)
	}
}

// Replies go by the octets that an element has now, under each policy.
func TestRoomOfElementsThatGrow(t *testing.T) {
	many := transport(param.TypeSCTPTransport, "192.0.2.1", 7)
	few := many
	many.Addrs = slices.Repeat(many.Addrs, 20)
	for _, d := range selection.All() {
		s := fresh()
		small := registered(s.Apply(register("echo", 1, at(0), policy(selection.Neutral(d.Type)), user(few))))
		large := registered(s.Apply(register("echo", 1, at(1), policy(selection.Neutral(d.Type)), user(many))))
		for room, want := range map[int]int{len(small.Encoded()): 0, len(large.Encoded()) - 1: 0, len(large.Encoded()): 1} {
			if got := len(resolve(s, Query{Room: room})); got != want {
				t.Errorf("%s: %d elements in %d octets, want %d", d.Name, got, room, want)
			}
			var mark Bookmark
			answer, _, _ := s.ResolveEncoded(nil, &mark, "echo", Query{Room: room})
			if got := len(bytes.Join(answer, nil)); got > room || got > 0 != (want > 0) {
				t.Errorf("%s: %d octets in room for %d", d.Name, got, room)
			}
		}
	}
}

// TestExpiryWhenTheClockIsSet shows that elements expire by the monotonic clock.
func TestExpiryWhenTheClockIsSet(t *testing.T) {
	set := func(t time.Time, seconds int) time.Time {
		// A time whose two clocks differ can't be made otherwise: its first
		// word has the wall clock's seconds above 30 bits.
		*(*uint64)(unsafe.Pointer(&t)) += uint64(seconds) << 30
		return t
	}
	for _, step := range []int{-3600, 0, 3600} {
		s := space(Config{RemovalFloor: 1})
		began := time.Now()
		s.Apply(register("echo", 1, began, life(30)))
		s.Apply(register("echo", 2, set(began.Add(10*time.Second), step), life(30)))
		s.Apply(register("echo", 3, set(began.Add(10*time.Second), step), life(30)))
		due := s.Due(nil, here, set(began.Add(30*time.Second), step), 9)
		if len(due) != 1 || due[0].(Remove).ID != 1 {
			t.Fatalf("clock set by %d s: due after 30 s: %v", step, due)
		}
		one[Removed](t, s, due[0])
		due = s.Due(nil, here, set(began.Add(40*time.Second), step), 9)
		if len(due) != 2 {
			t.Errorf("clock set by %d s: due after 40 s: %v", step, due)
		}
		one[Suspected](t, s, due[0]) // of three, one went 10 s ago
	}
	t.Run("while the removal window runs", func(t *testing.T) {
		s := space(Config{RemovalFloor: 1, RemovalWindow: time.Minute})
		began := time.Now()
		for id := range param.PEID(3) {
			s.Apply(register("echo", id+1, began))
		}
		one[Removed](t, s, remove(s.Get("echo", 1), Unreachable, began))
		one[Suspected](t, s, remove(s.Get("echo", 2), Unreachable, set(began.Add(59*time.Second), 3600)))
		one[Removed](t, s, remove(s.Get("echo", 3), Unreachable, set(began.Add(61*time.Second), -3600)))
	})
}

func TestASAP_3_2_10_DeregistrationRemoves(t *testing.T) {
	s := fresh()
	s.Apply(register("echo", 1, at(0)))
	r := registered(s.Apply(register("echo", 2, at(0))))
	e := one[Removed](t, s, Deregister{Handle: "echo", ID: 2})
	if e.Record != r || e.Cause != Deregistered || e.PoolRemoved {
		t.Errorf("%+v", e)
	}
	if s.Get("echo", 2) != nil || ids(resolve(s, Query{})) != "1" || s.Home(here).Elements != 1 {
		t.Error("the element is still there")
	}
}

func TestASAP_3_2_11_LastElementTakesThePoolAlong(t *testing.T) {
	s := fresh()
	s.Apply(register("echo", 1, at(0)))
	if e := one[Removed](t, s, Deregister{Handle: "echo", ID: 1}); !e.PoolRemoved {
		t.Errorf("%+v", e)
	}
	if _, ok := s.Pool("echo"); ok || len(s.Pools(nil, "", 9)) != 0 || s.Counts() != (Counts{Tombstones: 1}) || len(s.Homes()) != 0 {
		t.Error("something is left of the pool")
	}
	t.Run("AMB_82_so there are no empty pools", func(t *testing.T) {
		if _, _, ok := s.Resolve(nil, "echo", Query{}); ok {
			t.Error("resolved")
		}
	})
}

func TestASAP_3_2_12_UnknownElementIsGranted(t *testing.T) {
	s := fresh()
	if e := one[Absent](t, s, Deregister{Handle: "echo", ID: 1}); e.Handle != "echo" || e.ID != 1 {
		t.Errorf("%+v", e)
	}
	s.Apply(register("echo", 1, at(0)))
	one[Absent](t, s, Deregister{Handle: "echo", ID: 2, From: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
	t.Run("twice is once", func(t *testing.T) {
		one[Removed](t, s, Deregister{Handle: "echo", ID: 1})
		one[Absent](t, s, Deregister{Handle: "echo", ID: 1})
	})
}

func TestASAP_2_2_2_02_NoDeregistrationByProxy(t *testing.T) {
	s := fresh()
	c := register("echo", 1, at(0))
	c.Element.ASAP.Addrs = append(c.Element.ASAP.Addrs, netip.MustParseAddr("2001:db8::1"))
	from := func(addrs ...string) Deregister {
		d := Deregister{Handle: "echo", ID: 1}
		for _, a := range addrs {
			d.From = append(d.From, netip.MustParseAddr(a))
		}
		return d
	}
	s.Apply(c)
	rejects(t, s, from("192.0.2.2", "2001:db8::2"), param.NewCause(param.CauseSecurity))
	for _, d := range []Deregister{from("192.0.2.9", "192.0.2.1"), from("2001:db8::1"), from("::ffff:192.0.2.1"), from()} {
		s.Apply(c)
		one[Removed](t, s, d)
	}
}

func TestAMB_28_HomeChangeKeepsTheRight(t *testing.T) {
	s := fresh()
	s.Apply(register("echo", 1, at(0), home(there)))
	one[Removed](t, s, Deregister{Handle: "echo", ID: 1, From: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
}

func report(r *Record, reporter string) Report {
	return Report{Handle: r.Handle, ID: r.ID, Generation: r.Generation, Reporter: reporter, Now: at(1)}
}

func TestASAP_3_5_09_ReportsAreCountedPerElement(t *testing.T) {
	s := fresh()
	a, b := registered(s.Apply(register("echo", 1, at(0)))), registered(s.Apply(register("echo", 2, at(0))))
	for n := 1; n <= 3; n++ {
		if e := one[Counted](t, s, report(a, fmt.Sprint(n))); e.Reports != n || int(s.Get("echo", 1).Reports) != n {
			t.Errorf("%+v", e)
		}
	}
	if e := one[Counted](t, s, report(b, "1")); e.Reports != 1 {
		t.Errorf("%+v", e)
	}
	none(t, s, Report{Handle: "echo", ID: 3, Reporter: "1"})
	none(t, s, Report{Handle: "chat", ID: 1, Reporter: "1"})
}

func TestASAP_3_5_10_TooManyReportsRemove(t *testing.T) {
	s := fresh()
	r := registered(s.Apply(register("echo", 1, at(0))))
	for _, reporter := range []string{"a", "b", "c"} {
		one[Counted](t, s, report(r, reporter))
	}
	if e := one[Removed](t, s, report(r, "d")); e.Cause != Reported || e.Record.Reports != 4 || !e.PoolRemoved {
		t.Errorf("%+v", e)
	}
}

func TestAMB_16_ResetByRegistrationOnly(t *testing.T) {
	s := fresh()
	r := registered(s.Apply(register("echo", 1, at(0))))
	for _, reporter := range []string{"a", "b", "c"} {
		one[Counted](t, s, report(r, reporter))
	}
	none(t, s, Alive{Handle: "echo", ID: 1, Generation: r.Generation})
	if n := s.Get("echo", 1).Reports; n != 3 {
		t.Errorf("%d reports after an answer", n)
	}
	again := registered(s.Apply(register("echo", 1, at(1))))
	if again.Reports != 0 {
		t.Errorf("%d reports after a registration", again.Reports)
	}
	none(t, s, report(r, "d"))
	if e := one[Counted](t, s, report(again, "a")); e.Reports != 1 {
		t.Errorf("%+v", e)
	}
}

func TestTHR_2_13_3_02_OneReporterCannotRemove(t *testing.T) {
	s := fresh()
	r := registered(s.Apply(register("echo", 1, at(0))))
	one[Counted](t, s, report(r, "192.0.2.66"))
	for range 100 {
		none(t, s, report(r, "192.0.2.66"))
	}
	if s.Get("echo", 1).Reports != 1 {
		t.Error("counted twice")
	}
	t.Run("nor can as many as the threshold", func(t *testing.T) {
		s := fresh()
		r := registered(s.Apply(register("echo", 1, at(0))))
		for i := range 30 {
			s.Apply(report(r, fmt.Sprint(i%3)))
		}
		if r := s.Get("echo", 1); r == nil || r.Reports != 3 {
			t.Errorf("after three reporters: %+v", r)
		}
	})
	t.Run("reporters remembered are bounded", func(t *testing.T) {
		s := space(Config{RemovalFloor: 1, RemovalShare: 0.01})
		s.Apply(register("echo", 1, at(0)))
		s.Apply(register("echo", 2, at(0)))
		one[Removed](t, s, remove(s.Get("echo", 2), Unreachable, at(1)))
		for i := range 1000 {
			r := s.Get("echo", 1)
			s.Apply(report(r, fmt.Sprint(i)))
			s.Apply(Alive{Handle: "echo", ID: 1, Generation: r.Generation})
		}
		if n := len(s.reporters[s.lookup("echo").members.find(1)]); n > 4 {
			t.Errorf("%d reporters", n)
		}
	})
}

func TestENRP_3_6_2_05_ChecksumExample(t *testing.T) {
	s := fresh()
	if got := s.Home(here).Checksum(); got != 0xffff {
		t.Errorf("empty: 0x%04x", got)
	}
	for _, k := range []Key{{"EchoPool", 0x11223344}, {"EchoPool", 0xdeadbeef}, {"abc", 1}} {
		s.Apply(register(k.Handle, k.ID, at(0)))
	}
	if got := s.Home(here).Checksum(); got != 0x7e3b {
		t.Errorf("three elements: 0x%04x", got)
	}
}

func TestENRP_3_6_2_06_ChecksumAfterRemovals(t *testing.T) {
	s := fresh()
	s.Apply(register("EchoPool", 0x11223344, at(0)))
	want := s.Home(here).Checksum()
	s.Apply(register("abc", 1, at(0)))
	s.Apply(Deregister{Handle: "abc", ID: 1})
	if got := s.Home(here).Checksum(); got != want {
		t.Errorf("0x%04x, want 0x%04x", got, want)
	}
	s.Apply(Deregister{Handle: "EchoPool", ID: 0x11223344})
	if got := s.Home(here).Checksum(); got != 0xffff {
		t.Errorf("back to empty: 0x%04x", got)
	}
}

func TestENRP_3_6_2_07_ChecksumIgnoresOtherAttributes(t *testing.T) {
	s := fresh()
	s.Apply(register("echo", 1, at(0), policy(weight(1))))
	want := s.Home(here).Checksum()
	s.Apply(register("echo", 1, at(9), policy(weight(2)), life(7), user(transport(param.TypeTCPTransport, "192.0.2.9", 9))))
	if got := s.Home(here).Checksum(); got != want {
		t.Errorf("0x%04x, want 0x%04x", got, want)
	}
}

func TestENRP_3_6_2_08_ChecksumMovesWithTheHome(t *testing.T) {
	s, want := fresh(), fresh()
	for _, x := range []*Space{s, want} {
		x.Apply(register("echo", 1, at(0)))
		x.Apply(register("echo", 2, at(0), home(there)))
	}
	s.Apply(register("echo", 3, at(0)))
	s.Apply(register("echo", 3, at(1), home(there)))
	want.Apply(register("echo", 3, at(0), home(there)))
	for _, id := range []param.RegistrarID{here, there} {
		if got, w := s.Home(id), want.Home(id); got != w {
			t.Errorf("%v: %+v, want %+v", id, got, w)
		}
	}
}
