package hunt

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
)

// T03 of the timing vectors.
func TestASAP_3_6_15_RoundsDoubleUpToRetranMax(t *testing.T) {
	b := newBench(t, Config{}, a1, a2)
	b.refuse[a1], b.silent[a2] = true, true
	b.m.Start(b.now)
	b.run(260 * time.Second)
	b.wantTimes("round", seconds(0, 10, 30, 70, 130, 190, 250)...)
	b.wantTimes("dial "+a1, seconds(0, 10, 30, 70, 130, 190, 250)...)
}

func TestASAP_3_6_09_AtMostThreeAttemptsAtATime(t *testing.T) {
	b := newBench(t, Config{}, a1, a2, a3, a4, a5)
	for _, a := range []string{a1, a2, a3, a4, a5} {
		b.silent[a] = true
	}
	b.m.Start(b.now)
	b.run(9 * time.Second)
	if b.count("dial") != 3 {
		t.Errorf("%d attempts in the first round, want 3", b.count("dial"))
	}
	b.run(300 * time.Second)
	t.Run("ASAP_3_6_10_NeverMoreThanThreeConnections", func(t *testing.T) {
		if b.maxRunning != 3 {
			t.Errorf("%d attempts at a time, want 3", b.maxRunning)
		}
	})
	t.Run("ASAP_3_6_16_RoundEndsItsAttempts", func(t *testing.T) {
		if got := len(b.times("close " + a1)); got == 0 {
			t.Error("attempts outlive their round")
		}
	})
	t.Run("ASAP_3_6_17_NextRoundBeginsWithThree", func(t *testing.T) {
		var second int
		for _, e := range b.log {
			if e.at == 10*time.Second && e.what[:4] == "dial" {
				second++
			}
		}
		if second != 3 {
			t.Errorf("%d attempts in the second round, want 3", second)
		}
	})
	t.Run("ASAP_3_6_18_NextRoundTriesOthers", func(t *testing.T) {
		b.wantTimes("dial "+a4, b.times("dial "+a4)...)
		if first := b.times("dial " + a4)[0]; first != 10*time.Second {
			t.Errorf("fourth registrar first tried at %v, want 10s", first)
		}
	})
}

func TestASAP_3_6_11_T5RunsFromTheFirstAttempt(t *testing.T) {
	b := newBench(t, Config{T5: 4 * time.Second, RetranMax: 4 * time.Second}, a1)
	b.silent[a1] = true
	b.m.Start(b.now)
	b.run(9 * time.Second)
	b.wantTimes("round", seconds(0, 4, 8)...)
}

func TestASAP_3_6_12_HomeEndsTheHunt(t *testing.T) {
	b := newBench(t, Config{}, a1, a2, a3)
	b.silent[a1], b.silent[a3] = true, true
	b.m.Start(b.now)
	b.run(100 * time.Second)
	b.wantTimes("round", 0)
	t.Run("ASAP_3_6_19_FirstUpBecomesHome", func(t *testing.T) { b.wantTimes("home "+a2, 0) })
	t.Run("OVW_3_2_01_ENRP_1_1_02_FirstUpBecomesHome", func(t *testing.T) { b.wantTimes("home", 0) })
	t.Run("TheRestIsDropped", func(t *testing.T) {
		if len(b.running) != 0 || b.count("close") != 2 {
			t.Errorf("attempts left %d, closed %d", len(b.running), b.count("close"))
		}
	})
}

func TestASAP_3_6_13_T5IsResetByAHome(t *testing.T) {
	b := newBench(t, Config{}, a1)
	b.silent[a1] = true
	b.m.Start(b.now)
	b.run(25 * time.Second) // T5 is 20 s now
	b.silent[a1] = false
	b.run(31 * time.Second)
	b.silent[a1] = true
	b.m.Down(b.home(), b.now)
	b.run(45 * time.Second)
	b.wantTimes("round", seconds(0, 10, 30, 31, 41)...)
}

func TestASAP_3_6_14_FailedAttemptIsReplacedInTheRound(t *testing.T) {
	b := newBench(t, Config{}, a1, a2, a3, a4)
	for _, a := range []string{a1, a2, a3} {
		b.refuse[a] = true
	}
	b.m.Start(b.now)
	b.run(0)
	b.wantTimes("home "+a4, 0)
}

func TestASAP_3_6_20_LaterRequestsGoToTheHome(t *testing.T) {
	b := newBench(t, Config{}, a1, a2)
	b.refuse[a1] = true
	b.m.Start(b.now)
	b.run(0)
	for i := range 5 {
		b.request(resolve(fmt.Sprint(i)))
	}
	if got := b.count("send *asap.HandleResolution to " + a2); got != 5 {
		t.Errorf("%d requests at the home, want 5", got)
	}
}

func TestASAP_3_6_08_HuntAtStartAndWhenTheHomeIsLost(t *testing.T) {
	b := newBench(t, Config{}, a1, a2)
	b.m.Start(b.now)
	b.run(0)
	b.wantTimes("home "+a1, 0)
	b.run(50 * time.Second)
	b.m.Down(b.home(), b.now)
	b.run(51 * time.Second)
	b.wantTimes("home "+a2, 50*time.Second)
}

// T01 of the timing vectors.
func TestASAP_3_7_2_02_ThreeSendsThenError(t *testing.T) {
	b := newBench(t, Config{}, a1)
	b.m.Start(b.now)
	b.run(0)
	b.request(resolve("pool"))
	b.run(100 * time.Second)
	b.wantTimes("send", seconds(0, 15, 30)...)
	b.wantTimes("result", 45*time.Second)
	if !errors.Is(b.results[0].Err, ErrTimeout) {
		t.Errorf("error is %v, want ErrTimeout", b.results[0].Err)
	}
	t.Run("ASAP_3_3_05_T1Starts", func(t *testing.T) { b.wantTimes("result", 45*time.Second) })
	t.Run("ASAP_3_7_2_01_HuntsBesideTheSecondSend", func(t *testing.T) {
		if got := b.times("round"); got[1] != 15*time.Second {
			t.Errorf("rounds at %v, want one at 15s", got)
		}
	})
	t.Run("AMB_90_TwoResends", func(t *testing.T) {
		if b.count("send") != 3 {
			t.Errorf("%d sends, want 3", b.count("send"))
		}
	})
	t.Run("SM_PU_07_Resend", func(t *testing.T) { b.wantTimes("send", seconds(0, 15, 30)...) })
	t.Run("SM_PU_08_Drop", func(t *testing.T) {
		if len(b.m.requests) != 0 {
			t.Error("request is kept")
		}
	})
	t.Run("ASAP_3_3_06_T1Expiry", func(t *testing.T) { b.wantTimes("send", seconds(0, 15, 30)...) })
}

func TestASAP_3_7_2_03_HuntFindsAnotherHome(t *testing.T) {
	b := newBench(t, Config{}, a1, a2)
	b.refuse[a2] = true
	b.m.Start(b.now)
	b.run(0)
	old := b.home()
	b.request(resolve("pool"))
	b.run(14 * time.Second)
	b.refuse[a2] = false
	b.run(16 * time.Second)
	b.wantTimes("home "+a2, 15*time.Second)
	b.wantTimes("send *asap.HandleResolution to "+a1, seconds(0, 15)...)
	b.wantTimes("send *asap.HandleResolution to "+a2, 15*time.Second)
	b.wantTimes("close "+a1, 15*time.Second)
	t.Run("SM_PU_09_AnswerOfTheNewHome", func(t *testing.T) {
		answer := &asap.HandleResolutionResponse{Handle: "pool"}
		if b.m.Receive(old, answer, b.now) {
			t.Error("answer taken from the former home")
		}
		if !b.m.Receive(b.home(), answer, b.now) {
			t.Error("answer of the new home not taken")
		}
	})
}

func TestAnswerOfTheHomeEndsTheHuntBesideIt(t *testing.T) {
	b := newBench(t, Config{}, a1, a2)
	b.silent[a2] = true
	b.m.Start(b.now)
	b.run(0)
	home := b.home()
	b.request(resolve("pool"))
	b.run(16 * time.Second)
	if len(b.running) != 1 {
		t.Fatalf("attempts %v, want one beside the second send", b.running)
	}
	if !b.m.Receive(home, &asap.HandleResolutionResponse{Handle: "pool"}, b.now) {
		t.Fatal("answer not taken")
	}
	b.settle()
	rounds := b.count("round")
	b.run(5 * time.Minute)
	if len(b.running) != 0 || b.count("round") != rounds || b.home() != home {
		t.Errorf("attempts %v, %d rounds more, home %v", b.running, b.count("round")-rounds, b.home())
	}
}

func TestASAP_3_3_08_AnswerStopsT1(t *testing.T) {
	b := newBench(t, Config{}, a1)
	b.m.Start(b.now)
	b.run(0)
	id := b.request(resolve("pool"))
	b.run(10 * time.Second)
	if !b.m.Receive(b.home(), &asap.HandleResolutionResponse{Handle: "pool"}, b.now) {
		t.Fatal("answer not taken")
	}
	b.run(200 * time.Second)
	if len(b.results) != 1 || b.results[0].Request != id || b.results[0].Answer == nil {
		t.Errorf("results %+v", b.results)
	}
	b.wantTimes("send", 0)
	b.wantTimes("round", 0)
}

func TestAMB_11_OneRequestPerKeyAtATime(t *testing.T) {
	b := newBench(t, Config{}, a1)
	b.m.Start(b.now)
	b.run(0)
	first, second, other := b.request(resolve("pool")), b.request(resolve("pool")), b.request(resolve("other"))
	if b.count("send") != 2 {
		t.Fatalf("%d sends, want 2: one per key", b.count("send"))
	}
	take := func(handle string, want bool) {
		t.Helper()
		if got := b.m.Receive(b.home(), &asap.HandleResolutionResponse{Handle: param.PoolHandle(handle)}, b.now); got != want {
			t.Errorf("answer for %s taken: %v, want %v", handle, got, want)
		}
		b.settle()
	}
	take("other", true)
	take("pool", true)
	take("pool", true)
	take("pool", false) // surplus
	var order []RequestID
	for _, r := range b.results {
		order = append(order, r.Request)
	}
	if !slices.Equal(order, []RequestID{other, first, second}) {
		t.Errorf("answered %v", order)
	}
	t.Run("RegistrationsOfTwoElements", func(t *testing.T) {
		before := b.count("send")
		for _, id := range []param.PEID{1, 2, 2} {
			b.request(&asap.Registration{Handle: "pool", Element: param.PoolElement{ID: id}})
		}
		if got := b.count("send") - before; got != 2 {
			t.Errorf("%d registrations sent, want 2", got)
		}
	})
}

func TestASAP_3_7_1_01_LostMessageGoesToAnotherRegistrar(t *testing.T) {
	b := newBench(t, Config{}, a1, a2)
	b.m.Start(b.now)
	b.run(0)
	b.request(resolve("pool"))
	b.run(time.Second * 3)
	b.m.Down(b.home(), b.now)
	b.run(4 * time.Second)
	b.wantTimes("send *asap.HandleResolution to "+a1, 0)
	b.wantTimes("send *asap.HandleResolution to "+a2, 3*time.Second)
	t.Run("ASAP_3_7_1_02_HuntStarts", func(t *testing.T) { b.wantTimes("round", seconds(0, 3)...) })
	t.Run("ASAP_3_7_1_03_QueuedForTheNewHome", func(t *testing.T) { b.wantTimes("home "+a2, 3*time.Second) })
	t.Run("ASAP_3_7_1_04_Rebuilt", func(t *testing.T) {
		if b.count("send") != 2 {
			t.Errorf("%d sends, want 2", b.count("send"))
		}
	})
	t.Run("ASAP_3_3_07_SendFailureHunts", func(t *testing.T) { b.wantTimes("round", seconds(0, 3)...) })
	t.Run("SM_PU_10_RequestAgain", func(t *testing.T) { b.wantTimes("send", seconds(0, 3)...) })
}

func TestASAP_3_3_02_WithoutHomeTheHuntRunsFirst(t *testing.T) {
	b := newBench(t, Config{}, a1)
	b.silent[a1] = true
	b.m.Start(b.now)
	b.run(5 * time.Second)
	b.request(resolve("pool"))
	b.silent[a1] = false
	b.run(11 * time.Second)
	b.wantTimes("send", 10*time.Second)
	t.Run("SM_PU_02_HuntThenSend", func(t *testing.T) { b.wantTimes("home", 10*time.Second) })
}

// A registrar announces itself about every second (T6), and datagrams get lost.
func TestPresetsOutlastTheAnnouncements(t *testing.T) {
	for name, c := range map[string]Config{"Default": Default(), "Fast": Fast(), "RSPLib": RSPLib()} {
		if c.NoRegistrar < 3*time.Second {
			t.Errorf("%s: requests wait %v for a registrar", name, c.NoRegistrar)
		}
	}
}

func TestNoRegistrarEndsARequest(t *testing.T) {
	b := newBench(t, Config{}, a1)
	b.refuse[a1] = true
	b.m.Start(b.now)
	b.request(resolve("pool"))
	b.run(100 * time.Second)
	b.wantTimes("result", 45*time.Second)
	if !errors.Is(b.results[0].Err, ErrNoRegistrar) {
		t.Errorf("error is %v, want ErrNoRegistrar", b.results[0].Err)
	}
}

func TestFlappingRegistrarIsTamed(t *testing.T) {
	b := newBench(t, Config{}, a1)
	b.m.Start(b.now)
	b.request(resolve("pool"))
	for i := range 5 {
		b.run(time.Duration(i) * time.Second)
		if h, ok := b.m.Home(); ok {
			b.m.Down(h.Link, b.now)
		}
	}
	b.run(10 * time.Second)
	if got := b.count("dial"); got > 6 {
		t.Errorf("%d attempts in 5 s at a registrar that drops connections, want one a second", got)
	}
	b.wantTimes("result", 2*time.Second) // three connections lost with the request on them
	if !errors.Is(b.results[0].Err, ErrNoRegistrar) {
		t.Errorf("error is %v, want ErrNoRegistrar", b.results[0].Err)
	}
}

// The timers of elements.
func TestASAP_3_1_13_T2ExpiryHunts(t *testing.T) {
	b := newBench(t, Config{}, a1, a2)
	b.m.Start(b.now)
	b.run(0)
	b.request(&asap.Registration{Handle: "pool", Element: param.PoolElement{ID: 1}})
	b.run(100 * time.Second)
	b.wantTimes("send *asap.Registration to "+a1, 0)
	b.wantTimes("send *asap.Registration to "+a2, 30*time.Second)
	b.wantTimes("result", 60*time.Second)
	t.Run("AMB_31_TwoAttempts", func(t *testing.T) {
		if b.count("send") != 2 || !errors.Is(b.results[0].Err, ErrTimeout) {
			t.Errorf("%d sends, result %v", b.count("send"), b.results[0].Err)
		}
	})
}

func TestASAP_3_2_06_T3ExpiryHunts(t *testing.T) {
	b := newBench(t, Config{T3: 7 * time.Second}, a1, a2)
	b.m.Start(b.now)
	b.run(0)
	b.request(&asap.Deregistration{Handle: "pool", ID: 1})
	b.run(10 * time.Second)
	b.wantTimes("send *asap.Deregistration to "+a1, 0)
	b.wantTimes("send *asap.Deregistration to "+a2, 7*time.Second)
	t.Run("AMB_57_SendFailureHunts", func(t *testing.T) {
		b := newBench(t, Config{}, a1, a2)
		b.m.Start(b.now)
		b.run(2 * time.Second)
		b.request(&asap.Deregistration{Handle: "pool", ID: 1})
		b.m.Down(b.home(), b.now)
		b.run(2 * time.Second)
		b.wantTimes("send *asap.Deregistration to "+a2, 2*time.Second)
		if !b.m.Receive(b.home(), &asap.DeregistrationResponse{Handle: "pool", ID: 1}, b.now) {
			t.Error("answer not taken")
		}
	})
}

func TestASAP_3_4_04_AdoptByKeepAlive(t *testing.T) {
	b := newBench(t, Config{}, a1)
	b.m.Start(b.now)
	b.run(0)
	former := b.home()
	in := b.m.Incoming()
	peers := []netip.Addr{netip.MustParseAddr("192.0.2.9")}
	if !b.m.Adopt(in, 9, peers, sctp, b.now) {
		t.Fatal("not adopted")
	}
	b.settle()
	if b.home() != in {
		t.Fatal("home did not change")
	}
	t.Run("ASAP_3_4_05_NextRequestsGoThere", func(t *testing.T) {
		b.request(resolve("pool"))
		if !b.m.Receive(in, &asap.HandleResolutionResponse{Handle: "pool"}, b.now) {
			t.Error("answer of the new home not taken")
		}
	})
	t.Run("AMB_85_LastOneWins", func(t *testing.T) {
		third := b.m.Incoming()
		if !b.m.Adopt(third, 10, nil, sctp, b.now) || b.home() != third {
			t.Error("second H=1 not obeyed")
		}
		if b.m.Adopt(b.m.Incoming(), 10, nil, sctp, b.now) || b.home() != third {
			t.Error("H=1 from the present home changed something")
		}
		if !b.m.Adopt(former, 1, nil, tcp, b.now) || b.home() != former {
			t.Error("former home not adopted again")
		}
	})
	t.Run("AMB_86_AddressJoinsTheList", func(t *testing.T) {
		want := Endpoint{sctp, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:3863")}}
		if !slices.ContainsFunc(b.m.Known(), func(e Endpoint) bool { return e.String() == want.String() }) {
			t.Errorf("known %v, want %v among them", b.m.Known(), want)
		}
	})
}

func TestAdoptedRegistrarsAreBounded(t *testing.T) {
	b := newBench(t, Config{}, a1)
	b.m.Start(b.now)
	b.run(0)
	peer := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) }
	for i := range 100 {
		b.m.Adopt(b.m.Incoming(), param.RegistrarID(i+1), []netip.Addr{peer(i)}, sctp, b.now)
	}
	known := b.m.Known()
	if len(known) != 1+maxAdopted {
		t.Errorf("%d known, want the static one and %d", len(known), maxAdopted)
	}
	for i := 100 - maxAdopted; i < 100; i++ {
		if !slices.ContainsFunc(known, func(e Endpoint) bool { return e.Addrs[0].Addr() == peer(i) }) {
			t.Errorf("the latest are not known: %v", known)
		}
	}
	// And others still find a place.
	b.m.Announce(&asap.ServerAnnounce{Registrar: 7}, netip.MustParseAddrPort("198.51.100.1:5000"), b.now)
	if len(b.m.Known()) != 2+maxAdopted {
		t.Error("an announcement is ignored")
	}
}

// A home that was left for a registrar that took over is connected still; when the
// hunt finds it again there must not be two connections to it, and three next time.
func TestFormerHomeFoundAgainHasOneConnection(t *testing.T) {
	b := newBench(t, Config{}, a1)
	b.m.Start(b.now)
	for range 5 {
		b.run(0)
		in := b.m.Incoming()
		b.m.Adopt(in, 9, nil, tcp, b.now)
		b.m.Down(in, b.now)
		b.run(2 * time.Second)
		if len(b.m.links) != 1 {
			t.Fatalf("%d connections, want one", len(b.m.links))
		}
	}
}

func TestAMB_33_KeepAliveEndsTheHunt(t *testing.T) {
	b := newBench(t, Config{}, a1)
	b.m.Start(b.now)
	b.run(0)
	b.m.Down(b.home(), b.now)
	b.silent[a1] = true
	b.request(resolve("pool"))
	b.run(3 * time.Second)
	in := b.m.Incoming()
	b.m.Adopt(in, 9, nil, tcp, b.now)
	b.run(17 * time.Second)
	if b.home() != in || len(b.running) != 0 {
		t.Errorf("home %v, attempts %v", b.home(), b.running)
	}
	b.wantTimes("send *asap.HandleResolution to "+fmt.Sprintf("link %d", in), 3*time.Second)
}

func TestAMB_32_NoticesWaitForARegistrar(t *testing.T) {
	b := newBench(t, Config{MaxNotices: 3}, a1)
	b.silent[a1] = true
	b.m.Start(b.now)
	for i := range 5 {
		b.m.Notify(&asap.EndpointUnreachable{Handle: "pool", ID: param.PEID(i)})
	}
	b.silent[a1] = false
	b.run(10 * time.Second)
	if b.count("send") != 3 || b.m.Stats().NoticesDropped != 2 {
		t.Errorf("%d sent, %d dropped, want 3 and 2", b.count("send"), b.m.Stats().NoticesDropped)
	}
}

func TestOrderedErrorAnswersTheOldest(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		b := newBench(t, Config{Ordered: ordered}, a1)
		b.m.Start(b.now)
		b.run(0)
		first := b.request(resolve("one"))
		b.request(resolve("two"))
		took := b.m.Receive(b.home(), &asap.Error{}, b.now)
		b.settle()
		if took != ordered || (ordered && b.results[0].Request != first) {
			t.Errorf("ordered %v: taken %v, results %v", ordered, took, b.results)
		}
	}
}

func TestRequestsAreBounded(t *testing.T) {
	b := newBench(t, Config{MaxRequests: 2}, a1)
	b.request(resolve("a"))
	b.request(resolve("b"))
	if _, err := b.m.Request(resolve("c"), b.now); !errors.Is(err, ErrTooMany) {
		t.Errorf("error %v, want ErrTooMany", err)
	}
	if _, err := b.m.Request(&asap.Cookie{}, b.now); !errors.Is(err, ErrNotRequest) {
		t.Errorf("error %v, want ErrNotRequest", err)
	}
}
