package registrar

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/mem"
)

var group = netip.MustParseAddrPort("224.0.1.185:3863")

// announcing makes a registrar on this machine announce itself to the group.
func announcing(w **world, machine string) func(*Config) {
	return func(c *Config) {
		c.Announce = []func(context.Context) (transport.Announcer, error){
			func(context.Context) (transport.Announcer, error) { return (*w).net.Host(machine).Announcer(group) },
		}
	}
}

// hear collects the announcements of one registrar for a while.
func (w *world) hear(id param.RegistrarID, d time.Duration) []*asap.ServerAnnounce {
	w.Helper()
	a, err := w.net.Host("listener").Announcer(group)
	if err != nil {
		w.Fatal(err)
	}
	defer a.Close()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var out []*asap.ServerAnnounce
	buf := make([]byte, 2048)
	for {
		n, _, err := a.ReceiveAnnouncement(ctx, buf)
		if err != nil {
			return out
		}
		if m, ok := decodeASAP(buf[:n]).(*asap.ServerAnnounce); ok && m.Registrar == id {
			out = append(out, m)
		}
	}
}

func TestAnnouncements(t *testing.T) {
	t.Run("ASAP_3_6_02 ASAP_2_2_10_01 AMB_20 every second when alone, every (N+1) seconds with others", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := &world{T: t, made: make(map[string]bool)}
			inSameBubble(w, func() {
				got := w.hear(ownID, 10*time.Second+time.Millisecond)
				if len(got) < 9 || len(got) > 11 {
					t.Errorf("%d announcements in 10 s", len(got))
				}
				for _, m := range got {
					if len(m.Transports) != 1 || m.Transports[0].Type != param.TypeSCTPTransport ||
						m.Transports[0].Port != asapAddr.Port() || m.Transports[0].Addrs[0] != asapAddr.Addr() {
						t.Fatalf("announced %+v", m)
					}
				}
				second := w.registrar("second", "192.0.2.101", announcing(&w, "second"), func(c *Config) { c.ID = 2 })
				third := w.registrar("third", "192.0.2.102", announcing(&w, "third"), func(c *Config) { c.ID = 3 })
				w.after(10 * time.Second)
				if n := len(w.hear(ownID, 30*time.Second)); n < 9 || n > 11 {
					t.Errorf("%d announcements in 30 s among three", n)
				}
				if got := (backend{w.r}).Registrars(); len(got) != 3 || got[1].LastHeard == nil {
					t.Errorf("registrars %+v", got)
				}
				for _, r := range []*Registrar{second, third} {
					if err := r.Stop(context.Background()); err != nil {
						t.Error(err)
					}
				}
				w.after(20 * time.Second)
				if n := len(w.hear(ownID, 10*time.Second)); n < 9 {
					t.Errorf("%d announcements in 10 s when alone again", n)
				}
			}, announcing(&w, "registrar"))
		})
	})
	t.Run("ASAP_9_2_16 a flood of announcements is survived with bounded memory", func(t *testing.T) {
		a := newAnnounceMachine(ownID, time.Second, 100, epoch)
		for id := range param.RegistrarID(100000) {
			a.hear(id+1, epoch)
		}
		if len(a.others) != 100 {
			t.Errorf("%d registrars remembered", len(a.others))
		}
		a.tick(at(time.Hour))
		if len(a.others) != 0 {
			t.Errorf("%d registrars an hour later", len(a.others))
		}
	})
	t.Run("AMB_53 one that announces seldom is remembered for three of its intervals", func(t *testing.T) {
		a := newAnnounceMachine(ownID, time.Second, 100, epoch)
		a.hear(2, epoch)
		a.hear(2, at(4*time.Second))
		a.tick(at(15 * time.Second))
		if len(a.others) != 1 {
			t.Error("forgotten too soon")
		}
		a.tick(at(17 * time.Second))
		if len(a.others) != 0 {
			t.Error("remembered too long")
		}
	})
	t.Run("REQ_2_5_01 without multicast nothing is announced", func(t *testing.T) {
		inWorld(t, func(w *world) {
			if got := w.hear(ownID, 10*time.Second); len(got) != 0 {
				t.Errorf("announced %+v", got)
			}
		})
	})
}

// inSameBubble is inWorld inside a bubble that exists.
func inSameBubble(w *world, f func(), change ...func(*Config)) {
	w.net = mem.NewNetwork(1)
	w.r = w.registrar("registrar", asapAddr.Addr().String(), change...)
	defer func() {
		if err := w.r.Stop(context.Background()); err != nil {
			w.Error(err)
		}
	}()
	f()
}

func TestTwoRegistrarsInOneProcess(t *testing.T) {
	t.Run("ENRP_3_2_2_1_03 SM_PRS_01 each serves at once, for itself", func(t *testing.T) {
		inWorld(t, func(w *world) {
			second := w.registrar("second", "192.0.2.101", func(c *Config) { c.ID = 0 })
			defer func() {
				if err := second.Stop(context.Background()); err != nil {
					t.Error(err)
				}
			}()
			if second.ID() == 0 || second.ID() == w.r.ID() {
				t.Errorf("identifier %v", second.ID())
			}
			pe, other := w.peer(), w.host()
			other.connect(netip.MustParseAddrPort("192.0.2.101:3863"))
			pe.join(pool, pe.element(1))
			other.join("other", other.element(1))
			if len(pe.resolve(pool).Elements) != 1 || len(other.resolve("other").Elements) != 1 {
				t.Error("not resolved")
			}
			w.wantCauses(pe.resolve("other").Error, param.CauseUnknownPoolHandle)
			if n := testutil.ToFloat64(second.metrics.registrations.WithLabelValues(resultAccepted)); n != 1 {
				t.Errorf("the second counted %v registrations", n)
			}
		})
	})
}

func TestLifecycle(t *testing.T) {
	t.Run("a start that fails half-way leaves nothing behind", func(t *testing.T) {
		inWorld(t, func(w *world) {
			cfg := w.config("second", "192.0.2.101", func(c *Config) {
				c.Announce = []func(context.Context) (transport.Announcer, error){
					func(context.Context) (transport.Announcer, error) { return nil, errors.New("no group") },
				}
			})
			r, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Start(context.Background()); err == nil || !strings.Contains(err.Error(), "no group") {
				t.Errorf("Start: %v", err)
			}
			again := w.registrar("second", "192.0.2.101")
			if err := again.Stop(context.Background()); err != nil {
				t.Error(err)
			}
			if err := r.Start(context.Background()); !errors.Is(err, ErrState) {
				t.Errorf("second Start: %v", err)
			}
		})
	})
	t.Run("connections are closed in an orderly way, answers under way go out, stopping twice is harmless", func(t *testing.T) {
		inWorld(t, func(w *world) {
			pe := w.peer()
			pe.sendOn(pe.conn, &asap.Registration{Handle: pool, Element: pe.element(1)})
			synctest.Wait()
			for range 2 {
				if err := w.r.Stop(context.Background()); err != nil {
					t.Error(err)
				}
			}
			if m := one[*asap.RegistrationResponse](pe); m.Reject {
				t.Errorf("answer %+v", m)
			}
			if !pe.closed() || !strings.Contains(pe.ended.Error(), "EOF") {
				t.Errorf("ended by %v", pe.ended)
			}
			if _, err := w.r.Submit(context.Background(), nil); !errors.Is(err, ErrState) {
				t.Errorf("Submit: %v", err)
			}
		})
	})
	t.Run("Run serves until its context ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := &world{T: t, net: mem.NewNetwork(1), made: make(map[string]bool)}
			r, err := New(w.config("registrar", asapAddr.Addr().String()))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error)
			go func() { done <- r.Run(ctx) }()
			synctest.Wait()
			if got := r.Addrs(); len(got) != 2 || got[0].Protocol != "asap" || got[1].Protocol != "enrp" {
				t.Errorf("listening on %+v", got)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	})
}

func TestReload(t *testing.T) {
	inWorld(t, func(w *world) {
		cfg := w.r.cfg
		cfg.Limits.ElementsPerClient = 1
		cfg.Timers.KeepAlive.Interval = time.Second
		if err := w.r.Reload(cfg); err != nil {
			t.Fatal(err)
		}
		pe := w.peer()
		pe.join(pool, pe.element(1))
		w.wantCauses(pe.register(pool, pe.element(2)).Error, param.CauseLackOfResources)
		w.after(2 * time.Second)
		if n := len(pe.take()); n == 0 {
			t.Error("no keep-alive at the new interval")
		}

		for _, tt := range []struct {
			want   string
			change func(*Config)
		}{
			{"message size", func(c *Config) { c.Limits.MessageSize = 1 }},
			{"message size: needs a restart", func(c *Config) { c.Limits.MessageSize++ }},
			{"limits of the handlespace: needs a restart", func(c *Config) { c.Limits.ElementSize++ }},
			{"identifier: needs a restart", func(c *Config) { c.ID = 7 }},
			{"ASAP endpoints: needs a restart", func(c *Config) { c.ASAP = slices.Clone(c.ASAP); c.ASAP[0].Port++ }},
			{"limits of the handlespace: needs a restart", func(c *Config) { c.Limits.Pools++ }},
			{"compat: needs a restart", func(c *Config) { c.Compat = CompatRsplib }},
		} {
			bad := cfg
			bad.Timers.KeepAlive.Interval = time.Hour
			tt.change(&bad)
			if err := w.r.Reload(bad); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("want %q, got %v", tt.want, err)
			}
			if w.r.timers().KeepAlive.Interval != time.Second || testutil.ToFloat64(w.r.metrics.reloadOK) != 0 {
				t.Errorf("%s: the old configuration did not stay", tt.want)
			}
		}
	})
}

func TestConfigNamesAllProblems(t *testing.T) {
	_, err := New(Config{Compat: "other", Timers: Timers{UpdateDelay: time.Second}, Limits: Limits{TablePage: 1, RemovalShare: 2}})
	for _, want := range []string{"no networks", `compat "other"`, "update delay 1s", "table page 1", "removal share 2"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %q", err, want)
		}
	}
}

func TestMetricNames(t *testing.T) {
	inWorld(t, func(w *world) {
		pe := w.peer()
		pe.join(pool, pe.element(1))
		pe.resolve(pool)
		pe.resolve("no such pool")
		pe.say(&asap.EndpointUnreachable{Handle: pool, ID: 1})
		pe.sayHex("0500000800090003")
		pe.say(&asap.Deregistration{Handle: pool, ID: 1})
		families, err := w.r.metrics.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, f := range families {
			names = append(names, f.GetName())
		}
		for _, want := range []string{
			"rserpool_build_info", "rserpool_pools", "rserpool_pool_elements", "rserpool_registrations_total",
			"rserpool_resolutions_total", "rserpool_resolution_seconds", "rserpool_element_removals_total",
			"rserpool_unreachable_reports_total", "rserpool_transport_associations", "rserpool_decode_errors_total",
			"rserpool_config_last_reload_successful", "rserpool_messages_received_total",
		} {
			if !slices.Contains(names, want) {
				t.Errorf("no %s", want)
			}
		}
		problems, err := testutil.GatherAndLint(w.r.metrics.registry)
		if err != nil || len(problems) > 0 {
			t.Errorf("lint: %v %v", problems, err)
		}
	})
}

func TestPoolLabelsAreBounded(t *testing.T) {
	inWorld(t, func(w *world) {
		pe := w.peer()
		for _, h := range []param.PoolHandle{"a", "b", "c"} {
			pe.join(h, pe.element(1))
			pe.resolve(h)
		}
		count := func(label string) int {
			return int(testutil.ToFloat64(w.r.metrics.resolutions.WithLabelValues(label, "Round Robin", resultAccepted)))
		}
		if count("a") != 1 || count("b") != 1 || count(otherPools) != 1 {
			t.Errorf("counted %d, %d and %d", count("a"), count("b"), count(otherPools))
		}
		pe.say(&asap.Deregistration{Handle: "a", ID: 1})
		pe.take()
		pe.resolve("c")
		if count("c") != 1 {
			t.Error("the label of a pool that has gone is not free")
		}
	}, limits(func(l *Limits) { l.PoolLabels = 2 }))
}
