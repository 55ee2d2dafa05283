package poolelement

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

var (
	start  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	homeA  = &link{network: transport.SCTP, local: ports("192.0.2.1:5001", "198.51.100.1:5001"), remote: ports("192.0.2.9:3863")}
	homeB  = &link{network: transport.SCTP, local: ports("192.0.2.1:5001"), remote: ports("192.0.2.10:3863")}
	errOut = fmt.Errorf("registration: %w", hunt.ErrTimeout)
)

func ports(s ...string) []netip.AddrPort {
	out := make([]netip.AddrPort, len(s))
	for i := range s {
		out[i] = netip.MustParseAddrPort(s[i])
	}
	return out
}

// bench is a machine with what it has put out so far.
type bench struct {
	*machine
	t   *testing.T
	now time.Time
}

const (
	pool  = param.PoolHandle("EchoPool")
	ownID = param.PEID(0x11223344)
)

func newBench(t *testing.T, change func(*Config)) *bench {
	cfg := Config{
		Handle: pool, ID: ownID, Policy: param.Policy{Type: param.LeastUsed},
		User: param.Transport{Type: param.TypeSCTPTransport, Port: 7},
	}
	if change != nil {
		change(&cfg)
	}
	next := param.PEID(0x100)
	m := newMachine(cfg.withDefaults(), func() float64 { return 0.5 }, func() param.PEID { next++; return next })
	return &bench{machine: m, t: t, now: start}
}

// in brings a machine into a state by the events of a usual life.
func in(t *testing.T, s State, change func(*Config)) *bench {
	b := newBench(t, change)
	steps := map[State][]func(){
		Unregistered:  {},
		Hunting:       {b.join},
		Registering:   {b.findA, b.join},
		Registered:    {b.findA, b.join, b.grant},
		Reregistering: {b.findA, b.join, b.grant, b.t4Expires},
		Deregistering: {b.findA, b.join, b.grant, b.leavePool},
		Failed:        {b.findA, b.join, b.timeOut},
	}
	for _, step := range steps[s] {
		step()
	}
	b.take()
	if b.state != s {
		t.Fatalf("set-up ended in state %v, want %v", b.state, s)
	}
	return b
}

func (b *bench) join()      { b.register(b.now) }
func (b *bench) leavePool() { b.deregister(b.now) }
func (b *bench) findA()     { b.homeFound(b.now, homeA) }
func (b *bench) findB()     { b.homeFound(b.now, homeB) }
func (b *bench) timeOut()   { b.result(b.now, nil, errOut) }
func (b *bench) t4Expires() { b.now = b.t4; b.tick(b.now) }

func (b *bench) respond(reject bool, causes ...param.CauseCode) {
	b.result(b.now, &asap.RegistrationResponse{Reject: reject, Handle: pool, ID: b.id, Error: causesOf(causes)}, nil)
}

func (b *bench) grant() { b.respond(false) }

func (b *bench) respondDeregistration(causes ...param.CauseCode) {
	b.result(b.now, &asap.DeregistrationResponse{Handle: pool, ID: b.id, Error: causesOf(causes)}, nil)
}

func causesOf(codes []param.CauseCode) (out param.OperationError) {
	for _, c := range codes {
		out = append(out, param.NewCause(c))
	}
	return out
}

func (b *bench) keepAliveFrom(home bool, registrar param.RegistrarID) {
	b.receive(b.now, &asap.EndpointKeepAlive{Home: home, Registrar: registrar, Handle: pool}, false)
}

// expect checks the outputs since the last call, and the state.
func (b *bench) expect(state State, outputs ...string) []output {
	b.t.Helper()
	var got []string
	out := b.take()
	for _, o := range out {
		got = append(got, describe(o))
	}
	if !slices.Equal(got, outputs) {
		b.t.Errorf("outputs\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(outputs, "\n\t"))
	}
	if b.state != state {
		b.t.Errorf("state %v, want %v", b.state, state)
	}
	return out
}

func describe(o output) string {
	switch o := o.(type) {
	case requestOutput:
		return "request " + messageName(o.msg)
	case replyOutput:
		return "reply " + messageName(o.msg)
	case adoptOutput:
		return "adopt " + o.id.String()
	case eventOutput:
		return o.event.Type.String()
	case cancelOutput:
		return "cancel"
	case abandonOutput:
		return "abandon"
	}
	return fmt.Sprintf("%T", o)
}

func messageName(m asap.Message) string {
	return strings.TrimPrefix(fmt.Sprintf("%T", m), "*asap.")
}

// registration returns the registration among the outputs.
func registration(t *testing.T, out []output) *asap.Registration {
	t.Helper()
	for _, o := range out {
		if r, ok := o.(requestOutput); ok {
			if reg, ok := r.msg.(*asap.Registration); ok {
				return reg
			}
		}
	}
	t.Fatal("no registration was requested")
	return nil
}

// TestSM_PE goes through the rows of the state table that are the machine's
// own. SM-PE-04, 07, 08 and 17 involve T2, T3 and T5; see the element tests.
func TestSM_PE(t *testing.T) {
	rows := []struct {
		name  string
		from  State
		event func(*bench)
		to    State
		out   []string
	}{
		{"SM_PE_01_RegisterWithoutHomeWaitsForTheHunt", Unregistered, (*bench).join, Hunting, nil},
		{"SM_PE_02_RegisterWithHome", Unregistered,
			func(b *bench) { b.findA(); b.take(); b.join() }, Registering, []string{"request Registration"}},
		{"SM_PE_03_AssociationUpSendsPendingRegistration", Hunting, (*bench).findA, Registering,
			[]string{"home registrar found", "request Registration"}},
		{"SM_PE_03_AssociationUpSendsPendingReregistration", Registered,
			func(b *bench) { b.homeLost(); b.take(); b.findB() }, Reregistering,
			[]string{"home registrar found", "request Registration"}},
		{"SM_PE_03_AssociationUpWithDeregistrationOutstanding", Deregistering,
			func(b *bench) { b.homeLost(); b.take(); b.findB() }, Deregistering, []string{"home registrar found"}},
		{"SM_PE_05_ResponseAccepts", Registering, (*bench).grant, Registered, []string{"registered"}},
		{"SM_PE_06_RejectionOfFirstRegistration", Registering,
			func(b *bench) { b.respond(true, param.CauseInconsistentPolicy) }, Failed, []string{"registration failed"}},
		{"SM_PE_06_RejectionLeavesOldRegistration", Reregistering,
			func(b *bench) { b.respond(true, param.CauseInconsistentPolicy) }, Registered, []string{"re-registration rejected"}},
		{"SM_PE_08_TooManyAttempts", Registering, (*bench).timeOut, Failed, []string{"abandon", "registration failed"}},
		{"SM_PE_08_TooManyAttemptsToReregister", Reregistering, (*bench).timeOut, Failed, []string{"abandon", "registration failed"}},
		{"SM_PE_09_T4Expires", Registered, (*bench).t4Expires, Reregistering, []string{"request Registration"}},
		{"SM_PE_09_NewPolicyValue", Registered, func(b *bench) {
			b.setPolicy(b.now, param.Policy{Type: param.LeastUsed, Load: 1 << 31})
			b.now = b.deadline()
			b.tick(b.now)
		}, Reregistering, []string{"request Registration"}},
		{"SM_PE_09_NewLifetime", Registered, func(b *bench) {
			b.setLife(60)
			b.tick(b.deadline())
		}, Reregistering, []string{"request Registration"}},
		{"SM_PE_10_ReregistrationAccepted", Reregistering, (*bench).grant, Registered, []string{"re-registered"}},
		{"SM_PE_13_AssociationLostInR", Registered, (*bench).homeLost, Hunting, []string{"home registrar lost"}},
		{"SM_PE_13_AssociationLostInE", Reregistering, (*bench).homeLost, Hunting, []string{"home registrar lost"}},
		{"SM_PE_14_DeregisterInR", Registered, (*bench).leavePool, Deregistering, []string{"request Deregistration"}},
		{"SM_PE_14_DeregisterInE", Reregistering, (*bench).leavePool, Deregistering, []string{"request Deregistration"}},
		{"SM_PE_14_DeregisterInG", Registering, (*bench).leavePool, Deregistering, []string{"request Deregistration"}},
		{"SM_PE_15_DeregistrationConfirmed", Deregistering,
			func(b *bench) { b.respondDeregistration() }, Unregistered, []string{"deregistered"}},
		{"SM_PE_16_DeregistrationRefused", Deregistering,
			func(b *bench) { b.respondDeregistration(param.CauseSecurity) }, Registered, []string{"deregistration rejected"}},
		{"SM_PE_18_UnsolicitedDeregistrationResponseInR", Registered, func(b *bench) {
			b.receive(b.now, &asap.DeregistrationResponse{Handle: pool, ID: ownID}, true)
		}, Unregistered, []string{"registration lost"}},
		{"SM_PE_18_UnsolicitedDeregistrationResponseInE", Reregistering, func(b *bench) {
			b.receive(b.now, &asap.DeregistrationResponse{Handle: pool, ID: ownID}, true)
		}, Unregistered, []string{"cancel", "registration lost"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			b := in(t, row.from, nil)
			row.event(b)
			b.expect(row.to, row.out...)
		})
	}

	for _, s := range []State{Registering, Registered, Reregistering, Deregistering} {
		t.Run("SM_PE_11_KeepAliveIn_"+s.String(), func(t *testing.T) {
			b := in(t, s, nil)
			b.keepAliveFrom(false, 0x0a)
			b.expect(s, "reply EndpointKeepAliveAck")
			b.keepAliveFrom(true, 0x0b)
			b.expect(s, "reply EndpointKeepAliveAck", "adopt 0x0000000b")
			b.findB()
			b.expect(s, "home registrar changed")
		})
	}
	t.Run("AMB_85_NobodyAdopts0", func(t *testing.T) {
		b := in(t, Registered, nil)
		b.keepAliveFrom(true, 0)
		b.expect(Registered, "reply EndpointKeepAliveAck")
	})
	for s := Unregistered; s <= Failed; s++ {
		t.Run("SM_PE_12_ForeignHandleIn_"+s.String(), func(t *testing.T) {
			b := in(t, s, nil)
			b.receive(b.now, &asap.EndpointKeepAlive{Home: true, Registrar: 0x0b, Handle: "other"}, true)
			b.expect(s)
			if b.ignored != 1 {
				t.Errorf("counted %d ignored messages, want 1", b.ignored)
			}
		})
	}
	for _, s := range []State{Unregistered, Hunting} {
		t.Run("SM_PE_12_BeforeAnyRegistrationIn_"+s.String(), func(t *testing.T) {
			b := in(t, s, nil)
			b.keepAliveFrom(true, 0x0b)
			b.expect(s)
		})
	}
}

func TestT04_TimingOfReregistration(t *testing.T) {
	for life, want := range map[param.Life]time.Duration{
		300: 280 * time.Second, 3600: 600 * time.Second, param.InfiniteLife: 600 * time.Second,
		30: 10 * time.Second, 20: 10 * time.Second,
	} {
		t.Run(fmt.Sprintf("AMB_30_Life%d", life), func(t *testing.T) {
			b := in(t, Registered, func(c *Config) { c.Life = life })
			if got := b.deadline().Sub(b.now); got != want {
				t.Errorf("re-registers after %v, want %v", got, want)
			}
			b.tick(b.deadline().Add(-time.Millisecond))
			b.expect(Registered)
			b.tick(b.deadline())
			b.expect(Reregistering, "request Registration")
		})
	}
}

func TestASAP_3_1_20_T4StartsAfterSuccess(t *testing.T) {
	b := in(t, Registering, nil)
	if !b.deadline().IsZero() {
		t.Errorf("a timer runs before the registration is accepted: %v", b.deadline())
	}
	b.now = b.now.Add(12 * time.Second)
	b.grant()
	if got := b.deadline().Sub(b.now); got != 280*time.Second {
		t.Errorf("T4 runs %v, want 280s", got)
	}
}

func TestASAP_3_1_21_T4RestartsWhenReregistrationCompletes(t *testing.T) {
	b := in(t, Reregistering, nil)
	b.grant()
	if got := b.deadline().Sub(b.now); got != 280*time.Second {
		t.Errorf("T4 runs %v, want 280s", got)
	}
	b.t4Expires()
	b.expect(Reregistering, "re-registered", "request Registration")
}

func TestASAP_3_1_07_ReregistersBeforeTheLifeEnds(t *testing.T) {
	for life := param.Life(1); life < 700; life++ {
		b := in(t, Registered, func(c *Config) { c.Life = life })
		if d, _ := life.Duration(); b.deadline().Sub(b.now) >= d {
			t.Errorf("life %v: re-registers after %v", d, b.deadline().Sub(b.now))
		}
	}
}

func TestASAP_3_1_19_SameIdentifierAtReregistration(t *testing.T) {
	b := newBench(t, func(c *Config) { c.ID = 0 })
	b.findA()
	b.join()
	first := registration(t, b.take())
	b.grant()
	b.t4Expires()
	if again := registration(t, b.take()); again.Element.ID != first.Element.ID {
		t.Errorf("re-registers as %v, was %v", again.Element.ID, first.Element.ID)
	}
}

func TestASAP_3_1_18_ReregistersToChangeValues(t *testing.T) {
	b := in(t, Registered, nil)
	b.setPolicy(b.now, param.Policy{Type: param.LeastUsed, Load: param.MaxLoad})
	b.setLife(120)
	b.tick(b.deadline())
	reg := registration(t, b.take())
	if reg.Element.Policy.Load != param.MaxLoad || reg.Element.Life != 120 {
		t.Errorf("registered %+v", reg.Element)
	}
}

func TestASAP_2_2_3_03_WarningIsSuccessAndRejectIsFailureWithoutCause(t *testing.T) {
	b := in(t, Registering, nil)
	b.respond(false, param.CauseInvalidValues)
	out := b.expect(Registered, "registered")
	warning, ok := errors.AsType[*WarningError](out[0].(eventOutput).event.Err)
	if !ok || !warning.Causes.Has(param.CauseInvalidValues) {
		t.Errorf("event's error is %v, want a warning with the cause", out[0].(eventOutput).event.Err)
	}

	b = in(t, Registering, nil)
	b.respond(true)
	out = b.expect(Failed, "registration failed")
	if err := out[0].(eventOutput).event.Err; !isRejected(err) {
		t.Errorf("event's error is %v, want a rejection", err)
	}
}

func TestASAP_3_1_16_RejectionIsReportedOrCorrected(t *testing.T) {
	t.Run("Reported", func(t *testing.T) {
		b := in(t, Registering, nil)
		b.respond(true, param.CauseInconsistentPolicy)
		b.expect(Failed, "registration failed")
		b.setPolicy(b.now, param.Policy{Type: param.WeightedRoundRobin, Weight: 3})
		reg := registration(t, b.expect(Registering, "request Registration"))
		if reg.Element.Policy.Type != param.WeightedRoundRobin {
			t.Errorf("corrected registration has policy %+v", reg.Element.Policy)
		}
	})
	t.Run("ClashingIdentifierIsReplaced", func(t *testing.T) {
		b := newBench(t, func(c *Config) { c.ID = 0 })
		b.findA()
		b.join()
		first := registration(t, b.take())
		b.respond(true, param.CauseNonUniquePEID)
		second := registration(t, b.expect(Registering, "request Registration"))
		if second.Element.ID == first.Element.ID || second.Element.ID == 0 {
			t.Errorf("second identifier %v, first %v", second.Element.ID, first.Element.ID)
		}
	})
	t.Run("GivenIdentifierStays", func(t *testing.T) {
		b := in(t, Registering, nil)
		b.respond(true, param.CauseNonUniquePEID)
		b.expect(Failed, "registration failed")
	})
	t.Run("ClashesEnd", func(t *testing.T) {
		b := newBench(t, func(c *Config) { c.ID = 0 })
		b.findA()
		b.join()
		for range maxIdentifiers + 1 {
			b.respond(true, param.CauseNonUniquePEID)
		}
		if b.state != Failed {
			t.Errorf("state %v after %d clashes", b.state, maxIdentifiers+1)
		}
	})
	t.Run("RefusedChangeIsTakenBack", func(t *testing.T) {
		b := in(t, Registered, nil)
		b.setPolicy(b.now, param.Policy{Type: param.RoundRobin})
		b.tick(b.deadline())
		b.expect(Reregistering, "request Registration")
		b.respond(true, param.CauseInconsistentPolicy)
		b.expect(Registered, "re-registration rejected")
		b.t4Expires()
		reg := registration(t, b.expect(Reregistering, "request Registration"))
		if reg.Element.Policy.Type != param.LeastUsed {
			t.Errorf("registers %+v, want the accepted policy", reg.Element.Policy)
		}
	})
}

func TestASAP_3_1_17_NothingIdenticalAfterRejection(t *testing.T) {
	t.Run("FirstRegistration", func(t *testing.T) {
		b := in(t, Registering, nil)
		b.respond(true, param.CauseInvalidValues)
		b.take()
		b.findB()
		b.setLoad(param.MaxLoad)
		if !b.deadline().IsZero() {
			t.Errorf("a timer runs until %v", b.deadline())
		}
		b.expect(Failed, "home registrar changed")
	})
	t.Run("Reregistration", func(t *testing.T) {
		b := in(t, Reregistering, nil)
		b.respond(true, param.CauseLackOfResources)
		b.expect(Registered, "re-registration rejected")
		b.setLoad(param.MaxLoad)
		b.now = b.deadline()
		b.tick(b.now)
		b.expect(Unregistered, "registration lost")
		if want := start.Add(300 * time.Second); !b.now.Equal(want) {
			t.Errorf("registration ended at %v, want %v", b.now, want)
		}
		if !b.deadline().IsZero() {
			t.Errorf("a timer runs until %v", b.deadline())
		}
	})
	t.Run("UnlessConfigured", func(t *testing.T) {
		b := in(t, Registering, func(c *Config) { c.RetryRejected = time.Minute })
		b.respond(true, param.CauseLackOfResources)
		b.take()
		b.now = b.deadline()
		b.tick(b.now)
		b.expect(Registering, "request Registration")
		if got := b.now.Sub(start); got != time.Minute {
			t.Errorf("tried again after %v", got)
		}
	})
}

func TestASAP_3_1_23_FailureIsReportedAndEndsTheAttempts(t *testing.T) {
	b := in(t, Registering, func(c *Config) { c.GiveUp = true })
	b.timeOut()
	out := b.expect(Failed, "abandon", "registration failed")
	if err := out[1].(eventOutput).event.Err; !errors.Is(err, hunt.ErrTimeout) {
		t.Errorf("event's error is %v", err)
	}
	if !b.deadline().IsZero() {
		t.Errorf("a timer runs until %v", b.deadline())
	}
	b.homeLost()
	b.findB()
	b.expect(Failed, "home registrar lost", "home registrar found")
	b.join()
	b.expect(Registering, "request Registration")
}

func TestBackoffGrowsWithJitterAndIsResetBySuccess(t *testing.T) {
	b := in(t, Registering, nil)
	for _, pause := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		b.timeOut()
		// Half of the pause is certain, and half of the rest is the jitter
		// that the test's random source gives.
		if got, want := b.deadline().Sub(b.now), pause*time.Second*3/4; got != want {
			t.Errorf("pause %v, want %v", got, want)
		}
		b.now = b.deadline()
		b.tick(b.now)
	}
	b.grant()
	b.t4Expires()
	b.timeOut()
	if got := b.deadline().Sub(b.now); got != 750*time.Millisecond {
		t.Errorf("pause %v after a success, want 750ms", got)
	}
}

func TestASAP_3_4_02_AckNamesOwnHandleAndIdentifier(t *testing.T) {
	b := in(t, Registered, nil)
	b.keepAliveFrom(false, 0x0a)
	out := b.expect(Registered, "reply EndpointKeepAliveAck")
	ack := out[0].(replyOutput).msg.(*asap.EndpointKeepAliveAck)
	if ack.Handle != pool || ack.ID != ownID {
		t.Errorf("acknowledged %+v", ack)
	}
}

func TestASAP_3_4_01_ForeignKeepAlivesAreDropped(t *testing.T) {
	b := in(t, Registered, nil)
	b.receive(b.now, &asap.EndpointKeepAlive{Registrar: 0x0a, Handle: "other", Home: true}, true)
	b.receive(b.now, &asap.EndpointKeepAlive{Registrar: 0x0a, Handle: pool, ID: 0x99}, true) // rsplib's way
	b.expect(Registered)
}

func TestASAP_2_2_7_01_KeepAliveIsAnsweredWithAndWithoutH(t *testing.T) {
	b := in(t, Registered, nil)
	b.keepAliveFrom(false, 0x0a)
	b.keepAliveFrom(true, 0x0a)
	b.expect(Registered, "reply EndpointKeepAliveAck", "reply EndpointKeepAliveAck", "adopt 0x0000000a")
}

func TestASAP_2_2_7_02_WithoutHNobodyIsAdopted(t *testing.T) {
	b := in(t, Registered, nil)
	b.homeLost()
	b.take()
	b.keepAliveFrom(false, 0x0b)
	b.expect(Hunting, "reply EndpointKeepAliveAck")
}

func TestAMB_33_KeepAliveWithHEndsTheHunt(t *testing.T) {
	b := in(t, Registered, nil)
	b.homeLost()
	b.take()
	b.keepAliveFrom(true, 0x0b)
	b.expect(Hunting, "reply EndpointKeepAliveAck", "adopt 0x0000000b")
	b.findB()
	b.expect(Reregistering, "home registrar found", "request Registration")
}

func TestAMB_87_LostRegistrationIsMadeAgain(t *testing.T) {
	b := in(t, Registered, nil)
	b.receive(b.now, &asap.DeregistrationResponse{Handle: pool, ID: ownID}, true)
	b.expect(Unregistered, "registration lost")
	b.keepAliveFrom(false, 0x0a)
	b.expect(Unregistered) // as nobody should ask any more
	b.now = b.deadline()
	b.tick(b.now)
	b.expect(Registering, "request Registration")
}

func TestASAP_2_2_4_03_OnlyTheHomeEndsARegistration(t *testing.T) {
	for name, msg := range map[string]*asap.DeregistrationResponse{
		"OtherHandle":     {Handle: "other", ID: ownID},
		"OtherIdentifier": {Handle: pool, ID: 0x99},
		"WithError":       {Handle: pool, ID: ownID, Error: causesOf([]param.CauseCode{0})},
	} {
		t.Run(name, func(t *testing.T) {
			b := in(t, Registered, nil)
			b.receive(b.now, msg, true)
			b.expect(Registered)
		})
	}
	b := in(t, Registered, nil)
	b.receive(b.now, &asap.DeregistrationResponse{Handle: pool, ID: ownID}, false)
	b.expect(Registered)
}

func TestRegistrationThatExpiredDuringTheHuntIsMadeAnew(t *testing.T) {
	b := in(t, Registered, nil)
	b.homeLost()
	b.now = b.now.Add(301 * time.Second)
	b.take()
	b.findB()
	b.expect(Registering, "home registrar found", "request Registration")
}

func TestDeregistrationGoesOnUntilTheRegistrationHasExpired(t *testing.T) {
	b := in(t, Deregistering, nil)
	b.result(b.now, nil, errOut)
	b.expect(Deregistering, "request Deregistration")
	b.homeLost()
	b.now = b.now.Add(300 * time.Second)
	b.take()
	b.result(b.now, nil, errOut)
	b.expect(Unregistered, "deregistered")
}

func TestJoiningAgainWhileLeaving(t *testing.T) {
	b := in(t, Deregistering, nil)
	b.join()
	b.expect(Deregistering)
	b.respondDeregistration()
	b.expect(Registering, "deregistered", "request Registration")
}

func TestLeavingWithoutHavingRegistered(t *testing.T) {
	for _, s := range []State{Hunting} {
		b := in(t, s, nil)
		b.leavePool()
		b.expect(Unregistered, "deregistered")
	}
}
