package handlespace

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"rserpool/asap/param"
)

// model does what Space does with maps and passes over everything.
type model struct {
	cfg     Config
	records map[Key]Entry
	pools   map[param.PoolHandle]*modelPool
	reports map[Key]map[string]bool
	graves  map[Key]Tombstone
	marks   Marks
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
		records: map[Key]Entry{},
		pools:   map[param.PoolHandle]*modelPool{},
		reports: map[Key]map[string]bool{},
		graves:  map[Key]Tombstone{},
	}
}

func (m *model) count(keep func(Entry) bool) (n int) {
	for _, r := range m.records {
		if keep(r) {
			n++
		}
	}
	return n
}

func (m *model) size(handle param.PoolHandle) int {
	return m.count(func(r Entry) bool { return r.Handle == handle })
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
			return m.absent(c)
		}
		if len(c.From) > 0 && !slices.Contains(r.Element.ASAP.Addrs, c.From[0]) {
			return "rejected [10]"
		}
		return m.drop(k, Deregistered, m.raised(k, HomeID{c.Raiser, c.Incarnation}, c.Now), c.Now)
	case Remove:
		k := Key{c.Handle, c.ID}
		if r, ok := m.records[k]; ok && (r.Generation == c.Generation || c.Cause == Administrative && c.Generation == Generation{}) {
			if c.Cause == Administrative {
				return m.drop(k, Administrative, m.raised(k, r.Home(), c.Now), c.Now)
			}
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
			r.Suspect, r.Cause, r.Held = false, 0, time.Time{}
			m.records[k] = r
			return "recovered"
		}
	case Import:
		return m.imported(c)
	case Forget:
		k := Key{c.Handle, c.ID}
		if r, ok := m.records[k]; ok && (c.Home == 0 || c.Home == r.Element.Home) && (c.Generation.IsZero() || c.Generation == r.Generation) {
			return m.drop(k, Withdrawn, m.raised(k, HomeID{ID: c.Raiser}, c.Now), c.Now)
		}
	case Takeover:
		return m.takeover(c)
	case Confirm:
		k := Key{c.Handle, c.ID}
		if r, ok := m.records[k]; ok && r.Generation == c.Generation && r.Home() == c.Home && !r.Confirmed {
			content := r.Generation.Content
			r.Generation, r.Confirmed = m.raised(k, c.Home, c.Now), true
			r.Generation.Content = content
			r.Suspect, r.Cause, r.Held = false, 0, time.Time{}
			r.Refreshed = c.Now
			m.records[k] = r
			return "confirmed"
		}
	case HoldBack:
		if until := c.Now.Add(m.cfg.HoldBack); until.After(m.marks.HeldBack) {
			m.marks.HeldBack = until
		}
	case Sweep:
		for len(m.graves) > 0 && !m.graves[m.oldest()].Until.After(c.Now) {
			m.forget(m.oldest())
		}
	}
	return ""
}

func (m *model) absent(c Deregister) string {
	k := Key{c.Handle, c.ID}
	if _, known := m.graves[k]; !known && len(m.graves) >= m.cfg.MaxTombstones/2 {
		return "absent"
	}
	m.graves[k] = Tombstone{k, m.raised(k, HomeID{c.Raiser, c.Incarnation}, c.Now), c.Now.Add(24*time.Hour + m.cfg.Tombstone)}
	return "absent, remembered"
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
	r := Entry{Handle: c.Handle, Element: c.Element, Registered: c.Now, Refreshed: c.Now}
	if known {
		r.Registered = old.Registered
	}
	r.HomeIncarnation, r.Confirmed = c.Incarnation, true
	r.Generation = m.raised(k, HomeID{c.Raiser, c.Incarnation}, c.Now)
	m.records[k] = r
	m.reports[k] = map[string]bool{}
	delete(m.graves, k)
	return fmt.Sprintf("registered, known %v, pool created %v", known, p == nil)
}

func (m *model) raised(k Key, raiser HomeID, now time.Time) Generation {
	before := m.marks.Stamp
	if r, ok := m.records[k]; ok {
		before = r.Generation.Stamp
	} else if t, ok := m.graves[k]; ok {
		before = max(before, t.Generation.Stamp)
	}
	stamp := max(before+1, uint64(now.UnixMicro()))
	return Generation{stamp, stamp, raiser.ID, raiser.Incarnation}
}

func (m *model) takeOut(k Key, cause RemovalCause, now time.Time) string {
	p, r := m.pools[k.Handle], m.records[k]
	if cause == Administrative {
		return m.drop(k, cause, r.Generation, now)
	}
	if r.Suspect && (r.Held.IsZero() || now.Before(r.Held)) {
		return ""
	}
	suspects := m.count(func(o Entry) bool { return o.Handle == k.Handle && o.Suspect })
	if now.Before(m.marks.HeldBack) && (r.Suspect || float64(suspects+1) <= m.cfg.HoldBackShare*float64(m.size(k.Handle))) {
		r.Suspect, r.Cause, r.Held = true, cause, m.marks.HeldBack
		m.records[k] = r
		return fmt.Sprintf("held back %d", cause)
	}
	p.removals = slices.DeleteFunc(p.removals, func(at time.Time) bool { return !at.After(now.Add(-m.cfg.RemovalWindow)) })
	size := m.size(k.Handle) + len(p.removals)
	if float64(len(p.removals)+1) > max(float64(m.cfg.RemovalFloor), m.cfg.RemovalShare*float64(size)) {
		r.Suspect, r.Cause, r.Held = true, cause, time.Time{}
		m.records[k] = r
		return fmt.Sprintf("suspected %d", cause)
	}
	p.removals = append(p.removals, now)
	return m.drop(k, cause, r.Generation, now)
}

func (m *model) drop(k Key, cause RemovalCause, g Generation, now time.Time) string {
	life := 24 * time.Hour
	if l := m.records[k].Element.Life; l != param.InfiniteLife {
		life = time.Duration(l) * time.Second
	}
	m.graves[k] = Tombstone{k, g, now.Add(life + m.cfg.Tombstone)}
	if len(m.graves) > m.cfg.MaxTombstones {
		m.forget(m.oldest())
	}
	delete(m.records, k)
	if m.size(k.Handle) == 0 {
		delete(m.pools, k.Handle)
	}
	return fmt.Sprintf("removed %d, pool removed %v", cause, m.pools[k.Handle] == nil)
}

func (m *model) oldest() Key {
	return slices.MinFunc(slices.Collect(maps.Keys(m.graves)), func(a, b Key) int {
		return cmp.Or(m.graves[a].Until.Compare(m.graves[b].Until),
			cmp.Compare(m.graves[a].Generation.Stamp, m.graves[b].Generation.Stamp), a.Compare(b))
	})
}

func (m *model) forget(k Key) {
	m.marks.Stamp = max(m.marks.Stamp, m.graves[k].Generation.Stamp)
	delete(m.graves, k)
}

func (m *model) imported(c Import) string {
	k := Key{c.Handle, c.Element.ID}
	old, known := m.records[k]
	p := m.pools[c.Handle]
	home := HomeID{ID: c.Element.Home}
	if known && old.Home() == home && fmt.Sprint(old.Element) == fmt.Sprint(c.Element) {
		old.Refreshed = c.Now
		old.Suspect, old.Cause, old.Held = false, 0, time.Time{}
		m.records[k] = old
		return "imported, unchanged"
	}
	if !known && (len(m.records) >= m.cfg.MaxElements ||
		p != nil && m.size(c.Handle) >= m.cfg.MaxElementsPerPool || p == nil && len(m.pools) >= m.cfg.MaxPools) {
		return "rejected [6]"
	}
	if p == nil {
		m.pools[c.Handle] = &modelPool{policy: c.Element.Policy.Type, user: c.Element.User, founder: c.Element.ID}
	} else if p.founder == c.Element.ID {
		p.user = c.Element.User
	}
	r := Entry{Handle: c.Handle, Element: c.Element, Registered: c.Now, Refreshed: c.Now, Confirmed: true}
	if known {
		r.Registered = old.Registered
	}
	r.Generation = m.raised(k, home, c.Now)
	m.records[k] = r
	m.reports[k] = map[string]bool{}
	delete(m.graves, k)
	return fmt.Sprintf("imported, known %v, pool created %v", known, p == nil)
}

func (m *model) takeover(c Takeover) string {
	moved := 0
	for _, k := range slices.SortedFunc(maps.Keys(m.records), Key.Compare) {
		if r := m.records[k]; r.Home() == c.From && (c.Limit == 0 || moved < c.Limit) {
			to := c.To[moved%len(c.To)]
			r.Element.Home, r.HomeIncarnation, r.Confirmed = to.ID, to.Incarnation, false
			m.records[k] = r
			moved++
		}
	}
	if moved == 0 {
		return ""
	}
	return fmt.Sprintf("rehomed %v", moved > 1)
}

// words says what events say, as the model does.
func words(events []Event) string {
	if len(events) == 0 {
		return ""
	}
	switch e := events[0].(type) {
	case Registered:
		if e.Imported && e.Previous != nil && e.Previous.Generation == e.Record.Generation {
			return "imported, unchanged"
		} else if e.Imported {
			return fmt.Sprintf("imported, known %v, pool created %v", e.Previous != nil, e.PoolCreated)
		}
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
		if !e.Generation.IsZero() {
			return "absent, remembered"
		}
		return "absent"
	case Suspected:
		if !e.Record.Held().IsZero() {
			return fmt.Sprintf("held back %d", e.Cause)
		}
		return fmt.Sprintf("suspected %d", e.Cause)
	case Recovered:
		return "recovered"
	case Rehomed:
		return fmt.Sprintf("rehomed %v", len(events) > 1)
	case Confirmed:
		return "confirmed"
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
		suspects := m.count(func(r Entry) bool { return r.Handle == handles[i] && r.Suspect })
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
		if got := fmt.Sprintf("%+v", r.Entry()); got != fmt.Sprintf("%+v", want) {
			return fmt.Errorf("record %s, want %+v", got, want)
		}
		if s.Get(keys[i].Handle, keys[i].ID) != r {
			return fmt.Errorf("%v is another record when asked for alone", keys[i])
		}
	}
	suspects := m.count(func(r Entry) bool { return r.Suspect })
	if c := s.Counts(); c.Pools != len(handles) || c.Elements != len(keys) || c.Suspects != suspects || c.Tombstones != len(m.graves) {
		return fmt.Errorf("counts %+v", c)
	}
	for k, t := range m.graves {
		if got, ok := s.Find(k); !ok || got.Tombstone == nil || *got.Tombstone != t {
			return fmt.Errorf("tombstone %+v, %v, want %+v", got.Tombstone, ok, t)
		}
	}
	if s.Marks() != m.marks {
		return fmt.Errorf("marks %+v, want %+v", s.Marks(), m.marks)
	}
	if got, want := s.Digest(), recomputed(s); got != want {
		return fmt.Errorf("digest %x, recomputed %x", got.Sum(), want.Sum())
	}
	return m.compareHomes(s, keys)
}

// removal is what Due should return, and when.
type removal struct {
	at      time.Time
	command Remove
}

func (m *model) compareHomes(s *Space, keys []Key) error {
	for _, id := range []param.RegistrarID{here, there, elsewhere} {
		var owned []Key
		var sum param.Checksum
		var due []removal
		for _, k := range keys {
			if r := m.records[k]; r.Element.Home == id {
				owned = append(owned, k)
				sum.Add(k.Handle, k.ID)
				command := Remove{Handle: k.Handle, ID: k.ID, Generation: r.Generation, Cause: Expired, Now: at(1e9)}
				switch {
				case r.Suspect && !r.Held.IsZero():
					command.Cause = r.Cause
					due = append(due, removal{r.Held, command})
				case r.Suspect, !r.Confirmed && !r.Element.ASAP.IsZero(), r.Element.Life == param.InfiniteLife:
				default:
					due = append(due, removal{r.Refreshed.Add(time.Duration(r.Element.Life) * time.Second), command})
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
		// Of those that are due at the same time any may be first.
		when := map[Command]time.Time{}
		for _, d := range due {
			when[d.command] = d.at
		}
		slices.SortFunc(due, func(a, b removal) int { return a.at.Compare(b.at) })
		next, ok := s.NextDeadline(id)
		if ok != (len(due) > 0) || ok && !next.Equal(due[0].at) {
			return fmt.Errorf("home %v: next deadline %v, %v, want %v", id, next, ok, due)
		}
		commands := s.Due(nil, id, at(1e9), 1<<30)
		if len(commands) != len(due) {
			return fmt.Errorf("home %v: %d due, want %d", id, len(commands), len(due))
		}
		for i, c := range commands {
			command := c.(Remove)
			command.spot = spot{}
			if at, ok := when[command]; !ok || !at.Equal(due[i].at) {
				return fmt.Errorf("home %v: due %+v, want %+v", id, c, due[i])
			}
			delete(when, command)
		}
	}
	return nil
}

// compareResolution checks a resolution as far as it is the same for all
// policies.
func (m *model) compareResolution(s *Space, handle param.PoolHandle, items int) error {
	sound := m.count(func(r Entry) bool { return r.Handle == handle && !r.Suspect })
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
		if seen[r.Key()] || r != s.Get(handle, r.ID) || r.Suspect != (sound == 0) {
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
