package pooltest

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"rserpool/pooluser"
)

// pair starts a registrar, two elements and a user.
func pair(w *World) *pooluser.Resolver {
	w.Registrar("r1")
	w.Server("e1", "echo", echo)
	w.Server("e2", "echo", echo)
	user := w.User("u1")
	w.Settle()
	return user
}

// dial connects to the pool and returns the element's name.
func dial(t *testing.T, w *World, user *pooluser.Resolver) (*pooluser.Conn, string) {
	t.Helper()
	conn, err := user.Dial(t.Context(), "echo")
	if err != nil {
		t.Fatal(err)
	}
	return conn, w.Who(conn.Element.ID)
}

// readTakes returns how long a Read that brings nothing takes, and its error.
func readTakes(conn net.Conn) (time.Duration, error) {
	start := time.Now()
	_, err := conn.Read(make([]byte, 1))
	return time.Since(start), err
}

func TestRingOutlivesItsRegistrars(t *testing.T) {
	Run(t, func(t *testing.T, w *World) {
		w.Registrars("r1", "r2", "r3")
		w.Server("e1", "echo", echo)
		user := w.User("u1", func(cfg *pooluser.Config) { cfg.Stale = -1 })
		w.Settle()
		for _, name := range []string{"r1", "r2"} {
			w.Kill(name)
			w.Pass(time.Minute)
			if _, err := user.Resolve(t.Context(), "echo"); err != nil {
				t.Fatalf("after %s died: %v", name, err)
			}
		}
		w.Restart("r1")
		w.Settle()
		w.Kill("r3")
		w.Pass(time.Minute)
		if _, err := user.Resolve(t.Context(), "echo"); err != nil {
			t.Errorf("r1 came back and knows nothing: %v", err)
		}
	})
}

func TestFaults(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(w *World, element string)
		want time.Duration // until a Read ends
	}{
		"Kill":    {(*World).Kill, 0},
		"Crash":   {(*World).Crash, 10 * time.Second},
		"Isolate": {(*World).Isolate, 10 * time.Second},
		"Cut":     {func(w *World, e string) { w.Cut(e, "u1") }, 10 * time.Second},
		"Hang":    {(*World).Hang, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			Run(t, func(t *testing.T, w *World) {
				user := pair(w)
				conn, element := dial(t, w, user)
				test.do(w, element)
				_ = conn.SetDeadline(time.Now().Add(time.Hour))
				if took, err := readTakes(conn); took < test.want || took > test.want+time.Millisecond || err == nil {
					t.Errorf("Read took %v: %v", took, err)
				}
				if err := conn.Failed(t.Context()); err != nil {
					t.Error(err)
				}
				if _, other := dial(t, w, user); other == element {
					t.Errorf("%s is dead and serves", other)
				}

				w.Heal()
				w.Continue(element)
				if !w.Running(element) {
					w.Restart(element)
				}
				w.Settle()
				seen := map[string]bool{}
				for range 2 {
					user.Purge("echo")
					for range 2 {
						conn, name := dial(t, w, user)
						seen[name] = true
						if got, err := ask(conn, "x"); got != "x\n" || err != nil {
							t.Errorf("%s after its return: %q, %v", name, got, err)
						}
					}
				}
				if !seen[element] {
					t.Errorf("%s does not come back: %v", element, seen)
				}
			})
		})
	}
}

func TestStopLeavesThePoolAndEndsConnections(t *testing.T) {
	Run(t, func(t *testing.T, w *World) {
		user := pair(w)
		conn, element := dial(t, w, user)
		w.Stop(element)
		if took, err := readTakes(conn); took > time.Millisecond*10 || err == nil {
			t.Errorf("Read took %v: %v", took, err)
		}
		answer, err := user.Renew(t.Context(), "echo")
		if err != nil || len(answer.Elements) != 1 || w.Who(answer.Elements[0].ID) == element {
			t.Errorf("the pool has %v, %v", answer.Elements, err)
		}
		w.Restart(element)
		w.Settle()
		if answer, err = user.Renew(t.Context(), "echo"); err != nil || len(answer.Elements) != 2 {
			t.Errorf("the pool has %v, %v", answer.Elements, err)
		}
	})
}

func TestUsersDieToo(t *testing.T) {
	Run(t, func(t *testing.T, w *World) {
		user := pair(w)
		conn, _ := dial(t, w, user)
		w.Kill("u1")
		if _, err := conn.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the dead write: %v", err)
		}
		if _, err := user.Dial(t.Context(), "echo"); err == nil {
			t.Error("the dead dial")
		}
		user = w.User("u1")
		w.Settle()
		if conn, _ := dial(t, w, user); conn != nil {
			if got, err := ask(conn, "x"); got != "x\n" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		}
	})
}

func TestProcessesOfTheApplication(t *testing.T) {
	Run(t, func(t *testing.T, w *World) {
		w.Machine("a", "192.0.2.1", "198.51.100.1")
		var causes []error
		w.Start("a", func(ctx context.Context, m *Machine) error {
			if m.Name() != "a" || m.Addr().String() != "192.0.2.1" {
				t.Errorf("machine %s, %v", m.Name(), m.Addr())
			}
			<-ctx.Done()
			causes = append(causes, context.Cause(ctx))
			return nil
		})
		w.Pass(time.Second)
		w.Restart("a")
		w.Pass(time.Second)
		w.Stop("a")
		w.Pass(time.Second)
		if w.Running("a") {
			t.Error("runs after Stop")
		}
		if len(causes) != 2 || causes[0] != errKilled || causes[1] != errStopped {
			t.Errorf("ended by %v", causes)
		}
	})
}

func TestEqualSeedsGiveEqualWorlds(t *testing.T) {
	draw := func(seed uint64) (out []uint64) {
		Run(t, func(t *testing.T, w *World) {
			out = append(out, w.Seed(), w.Rand().Uint64())
			w.Start("a", func(ctx context.Context, m *Machine) error {
				out = append(out, m.Rand().Uint64(), uint64(m.PEID()), uint64(m.Hunt().Rand()*1e9))
				<-ctx.Done()
				return nil
			})
			w.Pass(time.Second)
			w.Restart("a")
			w.Pass(time.Second)
		}, func(cfg *Config) { cfg.Seed = seed })
		return out
	}
	a, b, c := draw(5), draw(5), draw(6)
	for i := range a {
		if a[i] != b[i] {
			t.Errorf("seed 5 gives %v and %v", a, b)
			break
		}
	}
	if a[1] == c[1] || a[2] == c[2] || a[2] == a[5] {
		t.Errorf("other seeds and starts give no others: %v, %v", a, c)
	}
}

func TestSeeds(t *testing.T) {
	var seeds []uint64
	f := func(t *testing.T, w *World) { seeds = append(seeds, w.Seed()) }
	check := func(want ...uint64) {
		t.Helper()
		if len(seeds) != len(want) || seeds[0] != want[0] || seeds[len(seeds)-1] != want[len(want)-1] {
			t.Errorf("ran seeds %v, want %v", seeds, want)
		}
		seeds = nil
	}
	t.Setenv("SEED", "")
	t.Setenv("SEEDS", "")
	Seeds(t, 3, f)
	check(1, 2, 3)
	t.Setenv("SEEDS", "2")
	Seeds(t, 3, f)
	check(1, 2)
	t.Setenv("SEED", "17")
	Seeds(t, 3, f)
	check(17)
	Run(t, f)
	check(17)
}
