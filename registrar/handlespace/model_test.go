package handlespace

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"rserpool/asap/param"
)

// model does what Space does with maps and passes over everything.
type model struct {
	cfg     Config
	records map[Key]Record // without what is encoded
	pools   map[param.PoolHandle]*modelPool
	reports map[Key]map[string]bool
	stamp   uint64
}

type modelPool struct {
	policy   param.PolicyType
	user     param.Transport
	founder  param.PEID
	owner    string
	removals []time.Time
}

func newModel(cfg Config) *model {
	return &model{
		cfg:     cfg.withDefaults(),
		records: map[Key]Record{},
		pools:   map[param.PoolHandle]*modelPool{},
		reports: map[Key]map[string]bool{},
	}
}

func (m *model) count(keep func(Record) bool) (n int) {
	for _, r := range m.records {
		if keep(r) {
			n++
		}
	}
	return n
}

func (m *model) size(handle param.PoolHandle) int {
	return m.count(func(r Record) bool { return r.Handle == handle })
}

// apply returns what the event should be, in words.
func (m *model) apply(cmd Command) string {
	switch c := cmd.(type) {
	case Register:
		return m.register(c)
	case Deregister:
		k := Key{c.Handle, c.ID}
		r, ok := m.records[k]
		if !ok {
			return "absent"
		}
		if len(c.From) > 0 && !slices.Contains(r.Element.ASAP.Addrs, c.From[0]) {
			return "rejected [10]"
		}
		m.stamp = max(m.stamp, r.Generation.Stamp+1, uint64(c.Now.UnixMilli()))
		return m.drop(k, Deregistered)
	case Remove:
		k := Key{c.Handle, c.ID}
		if r, ok := m.records[k]; ok && (r.Generation == c.Generation || c.Cause == Administrative && c.Generation == Generation{}) {
			return m.takeOut(k, c.Cause, c.Now)
		}
	case Report:
		k := Key{c.Handle, c.ID}
		r, ok := m.records[k]
		if !ok || r.Generation != c.Generation || r.Suspect || m.reports[k][c.Reporter] {
			return ""
		}
		r.Reports++
		m.records[k] = r
		if len(m.reports[k]) < 4 {
			m.reports[k][c.Reporter] = true
		}
		if r.Reports > 3 {
			return m.takeOut(k, Reported, c.Now)
		}
		return fmt.Sprintf("counted %d", r.Reports)
	case Alive:
		k := Key{c.Handle, c.ID}
		if r, ok := m.records[k]; ok && r.Generation == c.Generation && r.Suspect {
			r.Suspect, r.Cause = false, 0
			m.records[k] = r
			return "recovered"
		}
	}
	return ""
}

func (m *model) register(c Register) string {
	k := Key{c.Handle, c.Element.ID}
	old, known := m.records[k]
	p := m.pools[c.Handle]
	if known && c.Conflict == old.Generation {
		return "rejected [4]"
	}
	if p != nil {
		var codes []int
		if p.policy != c.Element.Policy.Type {
			codes = append(codes, 5)
		}
		if p.user.Type != c.Element.User.Type {
			codes = append(codes, 7)
		}
		if p.user.Use != c.Element.User.Use {
			codes = append(codes, 8)
		}
		if codes != nil {
			return fmt.Sprintf("rejected %v", codes)
		}
	}
	owned := 0
	for _, p := range m.pools {
		if p.owner == c.Owner {
			owned++
		}
	}
	if !known && (len(m.records) >= m.cfg.MaxElements ||
		p != nil && m.size(c.Handle) >= m.cfg.MaxElementsPerPool ||
		p == nil && (len(m.pools) >= m.cfg.MaxPools || c.Owner != "" && owned >= m.cfg.MaxPoolsPerOwner)) {
		return "rejected [6]"
	}
	if p == nil {
		m.pools[c.Handle] = &modelPool{
			policy: c.Element.Policy.Type, user: c.Element.User, founder: c.Element.ID, owner: c.Owner}
	} else if p.founder == c.Element.ID {
		p.user = c.Element.User
	}
	r := Record{Handle: c.Handle, Element: c.Element, Registered: c.Now, Refreshed: c.Now}
	before := m.stamp
	if known {
		r.Registered = old.Registered
		before = old.Generation.Stamp
	}
	r.Generation = Generation{max(before+1, uint64(c.Now.UnixMilli())), c.Raiser, c.Incarnation}
	if c.Element.Life != param.InfiniteLife {
		r.Expires = c.Now.Add(time.Duration(c.Element.Life) * time.Second)
	}
	m.records[k] = r
	m.reports[k] = map[string]bool{}
	return fmt.Sprintf("registered, known %v, pool created %v", known, p == nil)
}

func (m *model) takeOut(k Key, cause RemovalCause, now time.Time) string {
	p, r := m.pools[k.Handle], m.records[k]
	if cause == Administrative {
		return m.drop(k, cause)
	}
	if r.Suspect {
		return ""
	}
	p.removals = slices.DeleteFunc(p.removals, func(at time.Time) bool { return !at.After(now.Add(-m.cfg.RemovalWindow)) })
	size := m.size(k.Handle) + len(p.removals)
	if float64(len(p.removals)+1) > max(float64(m.cfg.RemovalFloor), m.cfg.RemovalShare*float64(size)) {
		r.Suspect, r.Cause = true, cause
		m.records[k] = r
		return fmt.Sprintf("suspected %d", cause)
	}
	p.removals = append(p.removals, now)
	return m.drop(k, cause)
}

func (m *model) drop(k Key, cause RemovalCause) string {
	m.stamp = max(m.stamp, m.records[k].Generation.Stamp)
	delete(m.records, k)
	if m.size(k.Handle) == 0 {
		delete(m.pools, k.Handle)
	}
	return fmt.Sprintf("removed %d, pool removed %v", cause, m.pools[k.Handle] == nil)
}

// words says what events say, as the model does.
func words(events []Event) string {
	if len(events) == 0 {
		return ""
	}
	switch e := events[0].(type) {
	case Registered:
		return fmt.Sprintf("registered, known %v, pool created %v", e.Previous != nil, e.PoolCreated)
	case Rejected:
		var codes []int
		for _, c := range e.Causes {
			codes = append(codes, int(c.Code))
		}
		return fmt.Sprintf("rejected %v", codes)
	case Removed:
		return fmt.Sprintf("removed %d, pool removed %v", e.Cause, e.PoolRemoved)
	case Absent:
		return "absent"
	case Suspected:
		return fmt.Sprintf("suspected %d", e.Cause)
	case Recovered:
		return "recovered"
	case Counted:
		return fmt.Sprintf("counted %d", e.Reports)
	}
	return fmt.Sprintf("%#v", events)
}

// compare checks everything that readers see.
func (m *model) compare(s *Space) error {
	keys := slices.SortedFunc(maps.Keys(m.records), Key.Compare)
	handles := slices.Sorted(maps.Keys(m.pools))
	pools := s.Pools(nil, "", 1<<30)
	if len(pools) != len(handles) {
		return fmt.Errorf("%d pools, want %d", len(pools), len(handles))
	}
	var stored []*Record
	for i, info := range pools {
		p := m.pools[handles[i]]
		suspects := m.count(func(r Record) bool { return r.Handle == handles[i] && r.Suspect })
		if info.Handle != handles[i] || info.Policy != p.policy || info.Transport != p.user.Type || info.Use != p.user.Use ||
			info.Elements != m.size(info.Handle) || info.Suspects != suspects || info.Owner != p.owner {
			return fmt.Errorf("pool %+v, want %+v", info, *p)
		}
		stored = s.Elements(stored, info.Handle, 0, 1<<30)
	}
	if len(stored) != len(keys) {
		return fmt.Errorf("%d elements, want %d", len(stored), len(keys))
	}
	for i, r := range stored {
		want := m.records[keys[i]]
		encoded, err := param.AppendPoolElement(nil, &want.Element, false)
		if err != nil || string(encoded) != string(r.Encoded()) {
			return fmt.Errorf("%v is encoded as %x, want %x, %v", keys[i], r.Encoded(), encoded, err)
		}
		want.encoded = r.encoded
		if got := fmt.Sprintf("%+v", *r); got != fmt.Sprintf("%+v", want) {
			return fmt.Errorf("record %s, want %+v", got, want)
		}
		if s.Get(keys[i].Handle, keys[i].ID) != r {
			return fmt.Errorf("%v is another record when asked for alone", keys[i])
		}
	}
	suspects := m.count(func(r Record) bool { return r.Suspect })
	if c := s.Counts(); c != (Counts{len(handles), len(keys), suspects}) {
		return fmt.Errorf("counts %+v", c)
	}
	return m.compareHomes(s, keys)
}

func (m *model) compareHomes(s *Space, keys []Key) error {
	for _, id := range []param.RegistrarID{here, there} {
		var owned []Key
		var sum param.Checksum
		var due []Record
		for _, k := range keys {
			if r := m.records[k]; r.Element.Home == id {
				owned = append(owned, k)
				sum.Add(k.Handle, k.ID)
				if !r.Expires.IsZero() && !r.Suspect {
					due = append(due, r)
				}
			}
		}
		var got []Key
		for _, r := range s.Owned(nil, id, Key{}, 1<<30) {
			got = append(got, r.Key())
		}
		if h := s.Home(id); !slices.Equal(got, owned) || h.Elements != len(owned) || h.Checksum() != sum.Sum() {
			return fmt.Errorf("home %v: %v, %d, 0x%04x, want %v, 0x%04x", id, got, h.Elements, h.Checksum(), owned, sum.Sum())
		}
		slices.SortFunc(due, func(a, b Record) int { return cmp.Or(a.Expires.Compare(b.Expires), a.Key().Compare(b.Key())) })
		next, ok := s.NextDeadline(id)
		if ok != (len(due) > 0) || ok && !next.Equal(due[0].Expires) {
			return fmt.Errorf("home %v: next deadline %v, %v, want %v", id, next, ok, due)
		}
		commands := s.Due(nil, id, at(1e9), 1<<30)
		if len(commands) != len(due) {
			return fmt.Errorf("home %v: %d due, want %d", id, len(commands), len(due))
		}
		for i, c := range commands {
			if want := remove(&due[i], Expired, at(1e9)); c != want {
				return fmt.Errorf("home %v: due %+v, want %+v", id, c, want)
			}
		}
	}
	return nil
}

// compareResolution checks a resolution as far as it is the same for all
// policies.
func (m *model) compareResolution(s *Space, handle param.PoolHandle, items int) error {
	sound := m.count(func(r Record) bool { return r.Handle == handle && !r.Suspect })
	all := m.size(handle)
	records, p, ok := s.Resolve(nil, handle, Query{Items: items})
	if ok != (all > 0) {
		return fmt.Errorf("%q: found %v, has %d elements", handle, ok, all)
	}
	if ok && p.Type != m.pools[handle].policy {
		return fmt.Errorf("%q: policy %v", handle, p)
	}
	candidates := sound
	if sound == 0 {
		candidates = all
	}
	// Weighted Round Robin leaves out those of weight 0.
	if n := min(items, candidates); len(records) != n && (p.Type != param.WeightedRoundRobin || len(records) > n) {
		return fmt.Errorf("%q: %d elements, want %d", handle, len(records), n)
	}
	seen := map[Key]bool{}
	for _, r := range records {
		if seen[r.Key()] || r != s.Get(handle, r.Element.ID) || r.Suspect != (sound == 0) {
			return fmt.Errorf("%q: wrong element %+v", handle, *r)
		}
		seen[r.Key()] = true
	}
	return nil
}

// compareEncoded asks two spaces that had the same commands and questions, one
// for records and one for what is encoded.
func compareEncoded(records, encoded *Space, mark *Bookmark, handle param.PoolHandle, q Query) error {
	chosen, p, ok := records.Resolve(nil, handle, q)
	pieces, policy, found := encoded.ResolveEncoded(nil, mark, handle, q)
	var want []byte
	for _, r := range chosen {
		want = append(want, r.Encoded()...)
	}
	if got := bytes.Join(pieces, nil); !bytes.Equal(got, want) || policy != nil && *policy != p || found != ok {
		return fmt.Errorf("%q, %+v: %x, %v, %v; want %x, %v, %v", handle, q, got, policy, found, want, p, ok)
	}
	return nil
}

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
	switch s.IntN(13) {
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
		return Remove{handle, id, g, pick(s.Rand, []RemovalCause{Expired, Unreachable, Reported}), s.now}
	case 9, 10, 11:
		return Report{handle, id, g, fmt.Sprint(s.IntN(16)), s.now}
	}
	return Alive{handle, id, g, s.now}
}

// TestAgainstModel applies random commands to a Space, to others that get other
// questions, and to the model, and compares events and states.
func TestAgainstModel(t *testing.T) {
	happened := map[string]int{}
	for run := range uint64(30) {
		r := rand.New(rand.NewPCG(2, run))
		cfg := Config{RemovalFloor: 2, RemovalShare: 0.2, MaxElements: 32, MaxElementsPerPool: 12, MaxPools: 3, MaxPoolsPerOwner: 2}
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
		if a, b := state(s), state(other); a != b {
			t.Fatalf("run %d: two states from the same commands:\n%s\n%s", run, a, b)
		}
	}
	// A story in which some event never happens tests less than it seems.
	for _, event := range []string{"", "absent", "recovered", "rejected [4]", "rejected [5]", "rejected [6]", "rejected [10]",
		"rejected [5 7 8]", "counted 3", "suspected 3", "suspected 4", "suspected 5",
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
