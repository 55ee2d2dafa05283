package hunt

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
)

var source = netip.MustParseAddrPort("192.0.2.77:50000")

func transportOf(t param.Type, port uint16, addrs ...string) param.Transport {
	out := param.Transport{Type: t, Port: port}
	for _, a := range addrs {
		out.Addrs = append(out.Addrs, netip.MustParseAddr(a))
	}
	return out
}

func (b *bench) knows(e string) bool {
	for _, k := range b.m.Known() {
		if k.String() == e {
			return true
		}
	}
	return false
}

func (b *bench) wantKnown(e string, want bool) {
	b.t.Helper()
	if got := b.knows(e); got != want {
		b.t.Errorf("at %v: %s known %v, want %v", b.now.Sub(epoch), e, got, want)
	}
}

func TestStaticRegistrarsReplaceStaticOnesOnly(t *testing.T) {
	b := newBench(t, Config{}, a1)
	b.m.Announce(&asap.ServerAnnounce{Registrar: 7}, netip.MustParseAddrPort("198.51.100.1:5000"), b.now)
	b.m.SetStatic(endpoints(a2), b.now)
	var known []string
	for _, e := range b.m.Known() {
		known = append(known, e.String())
	}
	slices.Sort(known)
	if want := []string{"sctp://198.51.100.1:3863", "tcp://" + a2}; !slices.Equal(known, want) {
		t.Errorf("known %v, want %v", known, want)
	}
}

func TestASAP_3_6_01_ListOfRegistrars(t *testing.T) {
	b := newBench(t, Config{}, a1, a2)
	if got := len(b.m.Known()); got != 2 {
		t.Errorf("%d known, want 2", got)
	}
	b.run(time.Hour) // static ones don't expire
	b.wantKnown("tcp://"+a1, true)
	b.m.SetStatic(endpoints(a2, a3), b.now)
	b.wantKnown("tcp://"+a1, false)
	b.wantKnown("tcp://"+a3, true)
	t.Run("ASAP_3_6_07_StaticList", func(t *testing.T) {
		b.m.Start(b.now)
		b.settle()
		b.home()
	})
	t.Run("REQ_2_5_01_NoMulticastNeeded", func(t *testing.T) { b.home() })
}

func TestASAP_3_6_03_AnnouncedAddressesHaveTheirOwnT7(t *testing.T) {
	b := newBench(t, Config{})
	sctp1, tcp1 := transportOf(param.TypeSCTPTransport, 3863, "192.0.2.1", "198.51.100.1"), transportOf(param.TypeTCPTransport, 4000, "192.0.2.1")
	const sctpName, tcpName = "sctp://192.0.2.1:3863,198.51.100.1:3863", "tcp://192.0.2.1:4000"
	b.m.Announce(&asap.ServerAnnounce{Registrar: 1, Transports: []param.Transport{sctp1, tcp1}}, source, b.now)
	b.wantKnown(sctpName, true)
	b.wantKnown(tcpName, true)
	b.run(2 * time.Second)
	b.m.Announce(&asap.ServerAnnounce{Registrar: 1, Transports: []param.Transport{sctp1}}, source, b.now)
	t.Run("ASAP_3_6_06_T7Expiry", func(t *testing.T) {
		b.t = t
		b.run(5 * time.Second)
		b.wantKnown(tcpName, false)
	})
	t.Run("ASAP_3_6_04_T7IsRestarted", func(t *testing.T) {
		b.t = t
		b.wantKnown(sctpName, true)
		b.run(7999 * time.Millisecond) // 3 x the interval of 2 s after the last
		b.wantKnown(sctpName, true)
		b.run(8 * time.Second)
		b.wantKnown(sctpName, false)
	})
}

func TestASAP_3_6_05_NoTransportMeansTheSource(t *testing.T) {
	b := newBench(t, Config{})
	b.m.Announce(&asap.ServerAnnounce{Registrar: 1}, source, b.now)
	b.wantKnown("sctp://192.0.2.77:3863", true)
	t.Run("RsplibAnnouncesFromItsPort", func(t *testing.T) {
		b := newBench(t, Config{Ordered: true})
		b.m.Announce(&asap.ServerAnnounce{Registrar: 1}, source, b.now)
		b.wantKnown("sctp://192.0.2.77:50000", true)
	})
}

// T07 of the timing vectors.
func TestAMB_53_T7IsThreeIntervals(t *testing.T) {
	b := newBench(t, Config{})
	const name = "sctp://192.0.2.77:3863"
	for i := range 4 {
		b.run(time.Duration(3*i) * time.Second)
		b.m.Announce(&asap.ServerAnnounce{Registrar: 1}, source, b.now)
	}
	b.run(17999 * time.Millisecond)
	b.wantKnown(name, true)
	b.run(18 * time.Second)
	b.wantKnown(name, false)
	t.Run("IntervalsLongerThanT7", func(t *testing.T) {
		b := newBench(t, Config{})
		for i := range 6 {
			b.run(time.Duration(8*i) * time.Second)
			b.m.Announce(&asap.ServerAnnounce{Registrar: 1}, source, b.now)
			if i > 1 {
				b.run(time.Duration(8*i+7) * time.Second)
				b.wantKnown(name, true)
			}
		}
	})
	t.Run("AnOutageIsForgotten", func(t *testing.T) {
		b := newBench(t, Config{})
		at := func(s int) {
			b.run(time.Duration(s) * time.Second)
			b.m.Announce(&asap.ServerAnnounce{Registrar: 1}, source, b.now)
		}
		at(0)
		for s := range 8 {
			at(50 + s)
		}
		b.run(57*time.Second + 4999*time.Millisecond)
		b.wantKnown(name, true)
		b.run(62 * time.Second)
		b.wantKnown(name, false)
	})
}

func TestASAP_9_2_16_FloodOfAnnouncementsIsBounded(t *testing.T) {
	b := newBench(t, Config{MaxAnnounced: 16}, a1)
	b.silent[a1] = true
	b.m.Start(b.now)
	for i := range 10_000 {
		addr := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		var ts []param.Transport
		for p := range uint16(20) {
			ts = append(ts, param.Transport{Type: param.TypeTCPTransport, Port: p + 1, Addrs: []netip.Addr{addr}})
		}
		b.m.Announce(&asap.ServerAnnounce{Registrar: param.RegistrarID(i), Transports: ts}, source, b.now)
	}
	if got := len(b.m.Known()); got != 17 {
		t.Errorf("%d known, want 16 and the static one", got)
	}
	if len(b.m.list.pulses) > 16 {
		t.Errorf("%d registrars remembered, want at most 16", len(b.m.list.pulses))
	}
	if b.m.Stats().AnnouncementsIgnored == 0 {
		t.Error("nothing counted as ignored")
	}
	b.run(time.Minute)
	if got := len(b.m.Known()); got != 1 {
		t.Errorf("%d known after the flood, want the static one", got)
	}
}

func TestUnusableAnnouncements(t *testing.T) {
	b := newBench(t, Config{})
	for _, tr := range []param.Transport{
		transportOf(param.TypeUDPTransport, 3863, "192.0.2.1"),
		transportOf(param.TypeTCPTransport, 0, "192.0.2.1"),
		transportOf(param.TypeTCPTransport, 3863, "127.0.0.1"),
		transportOf(param.TypeTCPTransport, 3863, "224.0.0.1"),
		transportOf(param.TypeTCPTransport, 3863, "0.0.0.0"),
		transportOf(param.TypeTCPTransport, 3863),
	} {
		b.m.Announce(&asap.ServerAnnounce{Registrar: 1, Transports: []param.Transport{tr}}, source, b.now)
	}
	if got := b.m.Known(); len(got) != 0 {
		t.Errorf("known %v, want none", got)
	}
	local := netip.MustParseAddrPort("127.0.0.1:50000")
	b.m.Announce(&asap.ServerAnnounce{Registrar: 1, Transports: []param.Transport{transportOf(param.TypeTCPTransport, 3863, "127.0.0.1")}}, local, b.now)
	b.wantKnown("tcp://127.0.0.1:3863", true)
}

func TestAnnouncementFeedsARunningHunt(t *testing.T) {
	b := newBench(t, Config{})
	b.m.Start(b.now)
	b.run(3 * time.Second)
	b.m.Announce(&asap.ServerAnnounce{Registrar: 1}, source, b.now)
	b.settle()
	b.wantTimes("home", 3*time.Second)
}

func TestConfigValidate(t *testing.T) {
	for _, cfg := range []Config{{}, Default(), Fast(), RSPLib()} {
		if err := cfg.Validate(); err != nil {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	bad := Config{T1: -1, RetranMax: time.Second, Parallel: 4, Jitter: 0.6, MaxRequests: -1}
	err := bad.Validate()
	if err == nil {
		t.Fatal("bad configuration accepted")
	}
	for _, name := range []string{"T1", "RetranMax", "Parallel", "Jitter", "MaxRequests"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%q does not name %s", err, name)
		}
	}
}

func TestJitterShortensT5(t *testing.T) {
	b := newBench(t, Config{Jitter: 0.5, Rand: func() float64 { return 0.5 }}, a1)
	b.silent[a1] = true
	b.m.Start(b.now)
	b.run(8 * time.Second)
	b.wantTimes("round", 0, 7500*time.Millisecond)
}
