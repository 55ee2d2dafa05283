package hunt

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
)

var epoch = time.Unix(1_000_000, 0)

// bench drives a machine in virtual time and notes what it does.
type bench struct {
	t   *testing.T
	m   *Machine
	now time.Time
	// refuse: these endpoints refuse at once; silent: never come up.
	refuse, silent map[string]bool
	links          map[Link]Endpoint
	running        map[Link]bool // attempts
	maxRunning     int
	log            []entry
	results        []Result
}

type entry struct {
	at   time.Duration
	what string
}

func newBench(t *testing.T, cfg Config, registrars ...string) *bench {
	b := &bench{
		t: t, m: New(cfg), now: epoch,
		refuse: map[string]bool{}, silent: map[string]bool{}, links: map[Link]Endpoint{}, running: map[Link]bool{},
	}
	b.m.SetStatic(endpoints(registrars...), b.now)
	return b
}

func endpoints(addrs ...string) []Endpoint {
	var out []Endpoint
	for _, a := range addrs {
		out = append(out, Endpoint{tcp, []netip.AddrPort{netip.MustParseAddrPort(a)}})
	}
	return out
}

func (b *bench) note(format string, args ...any) {
	b.log = append(b.log, entry{b.now.Sub(epoch), fmt.Sprintf(format, args...)})
}

// settle does what the machine asks for.
func (b *bench) settle() {
	for out := b.m.Ready(); !out.Empty(); out = b.m.Ready() {
		for _, l := range out.Close {
			delete(b.running, l)
			b.note("close %s", b.name(l))
		}
		for _, d := range out.Dials {
			b.links[d.Link] = d.Endpoint
			b.running[d.Link] = true
			b.note("dial %s", b.name(d.Link))
		}
		b.maxRunning = max(b.maxRunning, len(b.running))
		for _, s := range out.Sends {
			b.note("send %T to %s", s.Message, b.name(s.Link))
		}
		for _, e := range out.Events {
			switch e.Kind {
			case Round:
				b.note("round %d %v", e.Round, e.T5)
			case HomeFound:
				b.note("home %s", b.name(e.Link))
			case HomeLost:
				b.note("lost %s", b.name(e.Link))
			}
		}
		for _, r := range out.Results {
			b.note("result %v %v", r.Answer != nil, r.Err)
			b.results = append(b.results, r)
		}
		for _, d := range out.Dials {
			switch name := b.name(d.Link); {
			case !b.running[d.Link] || b.silent[name]:
			case b.refuse[name]:
				delete(b.running, d.Link)
				b.m.Failed(d.Link, b.now)
			default:
				delete(b.running, d.Link)
				b.m.Up(d.Link, b.now)
			}
		}
	}
}

func (b *bench) name(l Link) string {
	if e, ok := b.links[l]; ok {
		return e.Addrs[0].String()
	}
	return fmt.Sprintf("link %d", l)
}

// run lets time pass until the given moment.
func (b *bench) run(until time.Duration) {
	b.settle()
	for steps := 0; ; steps++ {
		at, ok := b.m.Deadline()
		if !ok || at.After(epoch.Add(until)) {
			break
		}
		if at.Before(b.now) || steps > 10_000 {
			b.t.Fatalf("deadline %v at %v, step %d", at.Sub(epoch), b.now.Sub(epoch), steps)
		}
		b.now = at
		b.m.Tick(b.now)
		b.settle()
	}
	b.now = epoch.Add(until)
}

// times returns when things happened that begin with what.
func (b *bench) times(what string) []time.Duration {
	var out []time.Duration
	for _, e := range b.log {
		if len(e.what) >= len(what) && e.what[:len(what)] == what {
			out = append(out, e.at)
		}
	}
	return out
}

func (b *bench) count(what string) int { return len(b.times(what)) }

func (b *bench) home() Link {
	h, ok := b.m.Home()
	if !ok {
		b.t.Fatal("no home registrar")
	}
	return h.Link
}

func (b *bench) request(msg asap.Message) RequestID {
	id, err := b.m.Request(msg, b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	b.settle()
	return id
}

func (b *bench) wantTimes(what string, want ...time.Duration) {
	b.t.Helper()
	if got := b.times(what); !slices.Equal(got, want) {
		b.t.Errorf("%q at %v, want %v\n%v", what, got, want, b.log)
	}
}

const (
	a1 = "192.0.2.1:3863"
	a2 = "192.0.2.2:3863"
	a3 = "192.0.2.3:3863"
	a4 = "192.0.2.4:3863"
	a5 = "192.0.2.5:3863"
)

func seconds(s ...int) []time.Duration {
	out := make([]time.Duration, len(s))
	for i, v := range s {
		out[i] = time.Duration(v) * time.Second
	}
	return out
}

func resolve(handle string) *asap.HandleResolution {
	return &asap.HandleResolution{Handle: param.PoolHandle(handle)}
}
