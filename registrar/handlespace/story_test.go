package handlespace

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"rserpool/asap/param"
)

// story draws commands that often hit what is stored.
type story struct {
	*rand.Rand
	m   *model
	now time.Time
	run int // which pools have which policy
}

var (
	storyPolicies = []param.PolicyType{
		param.RoundRobin, param.WeightedRoundRobin, param.Random, param.WeightedRandom, param.Priority,
		param.LeastUsed, param.LeastUsedDegradation, param.PriorityLeastUsed, param.RandomizedLeastUsed,
	}
	storyHomes = []HomeID{{here, 0}, {here, 1}, {there, 0}, {there, 1}, {elsewhere, 0}}
	storyLives = []param.Life{param.InfiniteLife, 5, 60, 300}
)

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func (s *story) handle() param.PoolHandle {
	return pick(s.Rand, []param.PoolHandle{"a", "b", "echo", "echo2"})
}

func (s *story) next() Command {
	if s.IntN(5) == 0 {
		s.now = s.now.Add(time.Duration(s.IntN(5000)) * time.Millisecond)
	}
	handle := s.handle()
	id := param.PEID(1 + s.IntN(16))
	address := netip.AddrFrom4([4]byte{192, 0, 2, byte(s.IntN(4))})
	var g Generation
	if r, ok := s.m.records[Key{handle, id}]; ok {
		g = r.Generation
		if s.IntN(8) == 0 {
			g.Stamp--
		}
	}
	switch s.IntN(19) {
	case 0, 1, 2, 3, 4:
		typ := storyPolicies[(int(handle[0]+handle[len(handle)-1])+s.run)%len(storyPolicies)]
		if s.IntN(10) == 0 {
			typ = pick(s.Rand, storyPolicies)
		}
		c := register(handle, id, s.now, life(pick(s.Rand, storyLives)), owner(pick(s.Rand, []string{"", "x"})),
			home(pick(s.Rand, []param.RegistrarID{here, there})))
		c.Element.Policy = param.Policy{Type: typ}
		c.Element.User = transport(param.TypeTCPTransport, address.String(), uint16(1+s.IntN(99)))
		c.Element.ASAP.Addrs = []netip.Addr{address}
		switch typ {
		case param.WeightedRoundRobin, param.WeightedRandom:
			c.Element.Policy.Weight = s.Uint32N(4)
		case param.Priority:
			c.Element.Policy.Priority = s.Uint32N(4)
		case param.LeastUsed, param.RandomizedLeastUsed:
			c.Element.Policy.Load = s.Uint32N(4)
		case param.LeastUsedDegradation, param.PriorityLeastUsed:
			c.Element.Policy.Load, c.Element.Policy.Degradation = s.Uint32N(4), s.Uint32N(4)
		}
		if s.IntN(12) == 0 {
			c.Element.User.Type = param.TypeSCTPTransport
			c.Element.User.Use = param.TransportUse(s.IntN(2))
		}
		if s.IntN(12) == 0 {
			c.Conflict = g
		}
		c.Incarnation = uint64(s.IntN(2))
		if s.IntN(4) == 0 {
			c.Element.Home = elsewhere
			imported := Import{c.Handle, c.Element, c.Now}
			if r, ok := s.m.records[Key{handle, id}]; ok && s.IntN(2) == 0 {
				imported.Element = r.Element
				imported.Element.Home = elsewhere
			}
			return imported
		}
		return c
	case 5:
		d := Deregister{Handle: handle, ID: id, Now: s.now}
		if s.IntN(2) == 0 {
			d.From = []netip.Addr{address}
		}
		return d
	case 6, 7, 8:
		if s.IntN(20) == 0 {
			return Remove{Handle: handle, ID: id, Cause: Administrative, Now: s.now}
		}
		return Remove{Handle: handle, ID: id, Generation: g, Cause: pick(s.Rand, []RemovalCause{Expired, Unreachable, Reported}), Now: s.now}
	case 9, 10, 11:
		return Report{handle, id, g, fmt.Sprint(s.IntN(16)), s.now}
	case 12:
		return Forget{handle, id, pick(s.Rand, []param.RegistrarID{0, elsewhere}), Generation{}, elsewhere, s.now}
	case 13:
		c := Takeover{From: pick(s.Rand, storyHomes), Limit: s.IntN(4), Now: s.now}
		for _, to := range storyHomes {
			if to != c.From {
				c.To = append(c.To, to)
			}
		}
		return c
	case 14, 15, 16:
		c := Confirm{handle, id, g, pick(s.Rand, storyHomes), s.now}
		if r, ok := s.m.records[Key{handle, id}]; ok && s.IntN(2) == 0 {
			c.Home = r.Home()
		}
		return c
	case 17:
		if s.IntN(8) == 0 {
			return HoldBack{s.now}
		}
		return Sweep{s.now.Add(time.Duration(s.IntN(80)) * time.Second)}
	}
	return Alive{handle, id, g, s.now}
}

// TestAgainstModel applies random commands to a Space, to others that get other
// questions, and to the model, and compares events and states.
func TestAgainstModel(t *testing.T) {
	happened := map[string]int{}
	for run := range uint64(30) {
		r := rand.New(rand.NewPCG(2, run))
		cfg := Config{RemovalFloor: 2, RemovalShare: 0.2, MaxElements: 32, MaxElementsPerPool: 12, MaxPools: 3, MaxPoolsPerOwner: 2,
			HoldBack: 3 * time.Second, HoldBackShare: 0.8, Tombstone: time.Second, MaxTombstones: 12}
		m := newModel(cfg)
		s, other, encoded := space(cfg), space(cfg), space(cfg)
		var mark Bookmark
		next := &story{Rand: r, m: m, now: start, run: int(run)}
		for step := range 600 {
			c := next.next()
			want := m.apply(c)
			events := s.Apply(c)
			if got := words(events); got != want {
				t.Fatalf("run %d, step %d: %+v: %q, want %q", run, step, c, got, want)
			}
			if got := words(other.Apply(c)); got != want {
				t.Fatalf("run %d, step %d: %+v: the second says %q, want %q", run, step, c, got, want)
			}
			if got := words(encoded.Apply(c)); got != want {
				t.Fatalf("run %d, step %d: %+v: the third says %q, want %q", run, step, c, got, want)
			}
			q := Query{Items: r.IntN(14)}
			if r.IntN(4) == 0 {
				q.Room = 44 * (1 + r.IntN(12))
			}
			if err := compareEncoded(other, encoded, &mark, next.handle(), q); err != nil {
				t.Fatalf("run %d, step %d: %+v: %v", run, step, c, err)
			}
			happened[want]++
			if err := m.compareResolution(s, next.handle(), 1+r.IntN(9)); err != nil {
				t.Fatalf("run %d, step %d: %+v: %v", run, step, c, err)
			}
			if step%25 == 0 {
				if err := m.compare(s); err != nil {
					t.Fatalf("run %d, step %d: %+v: %v", run, step, c, err)
				}
			}
		}
		if s.Counts().Forgotten > 0 {
			happened["too many tombstones"]++
		}
		if a, b := state(s), state(other); a != b {
			t.Fatalf("run %d: two states from the same commands:\n%s\n%s", run, a, b)
		}
	}
	// A story in which some event never happens tests less than it seems.
	for _, event := range []string{"", "absent", "absent, remembered", "recovered", "rejected [4]", "rejected [5]", "rejected [6]", "rejected [10]",
		"rejected [5 7 8]", "counted 3", "suspected 3", "suspected 4", "suspected 5",
		"imported, unchanged", "imported, known true, pool created false", "imported, known false, pool created true",
		"too many tombstones", "removed 6, pool removed false", "rehomed true", "rehomed false", "confirmed", "held back 3", "held back 4",
		"removed 1, pool removed true", "removed 2, pool removed false", "removed 5, pool removed false"} {
		if happened[event] == 0 {
			t.Errorf("%q never happened", event)
		}
	}
}

// Pools that fit into a message and pools that don't.
func TestEncodedPoolsOfAllSizes(t *testing.T) {
	size := len(crowd(Config{}, 1).Get("echo", 1).Encoded())
	for _, n := range []int{1, 2, param.MaxLength / size, param.MaxLength/size + 1, 3000} {
		records, encoded := crowd(Config{}, n), crowd(Config{}, n)
		var mark Bookmark
		for range 3 {
			for _, q := range []Query{{}, {Room: param.MaxLength}, {Room: size}, {Items: n - 1, Room: param.MaxLength}} {
				if err := compareEncoded(records, encoded, &mark, "echo", q); err != nil {
					t.Fatalf("%d elements: %.200s", n, err)
				}
			}
		}
	}
}

// recomputed returns the digests made anew from all that is stored.
func recomputed(s *Space) (d Digest) {
	for c := (Cursor{}); !c.Done; {
		s.Scan(&c, func(item Item) bool {
			r := item.Key().Range()
			switch {
			case item.Record != nil:
				e := item.Record.Entry()
				again, err := NewItem(&e, item.Reporters)
				if err != nil {
					panic(err)
				}
				d.Entries[r] += again.Record.digest
			case item.Pool != nil:
				d.Entries[r] += item.Pool.digest()
			default:
				d.Tombstones[r] += item.Tombstone.digest()
			}
			return true
		})
	}
	return d
}
