package replica

import (
	"iter"
	"slices"

	"rserpool/enrp/ring"
	"rserpool/registrar/handlespace"
	"rserpool/registrar/replica/internal/fault"
)

// bounds are those of an exchange. All members must have the same.
type bounds struct {
	chunk  int // octets of items in a message; one item is always allowed
	window int // own messages under way
	scan   int // items looked at before other work gets its turn
	merge  int // items merged, pools settled, or commands applied, before it does
	queue  int // commands that wait for END
	octets int // of these commands, encoded
}

var standard = bounds{chunk: 32 << 10, window: 4, scan: 20_000, merge: 2_000, queue: 1 << 20, octets: 256 << 20}

const (
	maxTallies  = 1 << 16 // elements that are compared for the report
	maxReported = 1000    // entries of a report
)

// exchange brings members that may know different things to the same state. As of
// the install of a view
//
//   - each member says hello, with the digests of what it knows, range by range,
//   - of each range in which not all agree, those who agree with each other send what
//     they know, each what it is home to, and the lowest of them also what has its
//     home elsewhere, pools and tombstones,
//   - and when all parts of all were delivered, the coordinator has END ordered.
//
// At END every member takes what is better than its own (handlespace.Item.Beats): the
// same everywhere. Commands that are ordered meanwhile wait until then, so what a
// member sends is what it said hello with.
//
// To take over much takes time, for which a ring does not wait. So a member that has
// never been synced, and serves nobody, takes what it gets at once; and if there were
// many items, each member takes them piece by piece after the last part, and says when
// it is done, before END. Of an exchange that is interrupted each member takes what it
// has got, before the next one begins, so that what died with another is not lost, and
// what was told need not be told again. That members then know different parts of what
// is better does no harm.
//
// Which members agree is told by the digests, not by the views they come from: that
// holds for members that were parted during an exchange, too.
type exchange struct {
	bounds  bounds
	view    ring.View
	self    int
	origins []ring.Origin // in the order of the view
	marks   handlespace.Marks
	octets  int
	begun   bool // hello was said
	ending  bool // END is asked for

	version  uint8                 // that this member knows
	versions []uint8               // and others, by member; 0 until its hello
	digests  []*handlespace.Digest // by member, nil until its hello
	missing  int                   // hellos
	differs  [handlespace.Ranges]bool
	sides    [handlespace.Ranges]int  // synced members that differ from each other
	lowest   [handlespace.Ranges]bool // this member among those that agree with it
	waiting  []bool                   // by member: its last part is to come
	curious  []bool                   // by member: its parts matter here
	items    int                      // in all parts
	merging  []bool                   // by member: it is not done with many items; nil: they are few

	sending  bool
	cursor   handlespace.Cursor
	part     part // being filled
	inFlight int

	pools   []handlespace.Item      // of others
	better  []handlespace.Item      // than what this member knows
	places  map[handlespace.Key]int // in better
	tallies map[handlespace.Key]*tally
	omitted int
	merged  int  // of better
	told    bool // that all of it is
}

// tally compares what sides know of an element.
type tally struct {
	kept  handlespace.Item
	lost  *handlespace.Item // the best of those that differ from kept
	sides int               // that have something
}

func newExchange(cfg *Config, e *ring.Installed) *exchange {
	n := len(e.View.Members)
	return &exchange{
		bounds: cfg.bounds, view: e.View, self: e.View.Index(cfg.Self), origins: e.Origins,
		digests: make([]*handlespace.Digest, n), waiting: make([]bool, n), curious: make([]bool, n), missing: n,
		version: cfg.version, versions: make([]uint8, n),
		places:  make(map[handlespace.Key]int),
		tallies: make(map[handlespace.Key]*tally),
	}
}

// fresh reports whether this member has never been synced, allFresh whether no member
// has.
func (x *exchange) fresh() bool { return x.origins[x.self].Synced.IsZero() }
func (x *exchange) allFresh() bool {
	return !slices.ContainsFunc(x.origins, func(o ring.Origin) bool { return !o.Synced.IsZero() })
}

// partial reports whether somebody knows something. When nobody has been synced it was
// told by others that had.
func (x *exchange) partial() bool {
	var none handlespace.Digest
	return slices.ContainsFunc(x.digests, func(d *handlespace.Digest) bool { return d != nil && *d != none })
}

// begin returns this member's first message, once; nil if there is nobody to tell.
func (x *exchange) begin(space *handlespace.Space) []byte {
	if x.begun {
		return nil
	}
	x.begun = true
	digest, marks := space.Digest(), space.Marks()
	x.mark(marks) // others may have told theirs
	if len(x.view.Members) == 1 {
		x.digests[x.self], x.missing = &digest, 0
		return nil
	}
	return encodeHello(x.version, x.view.ID, &digest, marks)
}

// mark takes over marks.
func (x *exchange) mark(m handlespace.Marks) {
	x.marks.Stamp = max(x.marks.Stamp, m.Stamp)
	if m.HeldBack.After(x.marks.HeldBack) {
		x.marks.HeldBack = m.HeldBack
	}
}

// speaks returns the version of payloads that all members know who have said hello.
func (x *exchange) speaks() uint8 {
	lowest := x.version
	for _, v := range x.versions {
		if v != 0 {
			lowest = min(lowest, v)
		}
	}
	return lowest
}

// take takes a message of the exchange.
func (x *exchange) take(r *Replica, from ring.Member, m *message, octets int) {
	i := x.view.Index(from)
	if i < 0 {
		return
	}
	x.octets += octets
	if m.digest != nil {
		if x.digests[i] == nil {
			x.digests[i], x.versions[i] = m.digest, m.highest
			x.mark(m.marks)
			if x.missing--; x.missing == 0 {
				x.plan()
			}
		}
		return
	}
	if m.done {
		if x.merging != nil {
			x.merging[i] = false
		}
		return
	}
	if x.missing > 0 || !x.waiting[i] {
		return
	}
	if x.curious[i] {
		if items, err := m.part.decode(&r.decoding); err == nil {
			x.collect(r, i, items)
		} else {
			r.stats.Dropped++ // but it came: members that don't look into it go on
		}
	}
	if i == x.self {
		x.inFlight--
	}
	x.waiting[i] = !m.last
	x.items += m.part.items
	if x.collected() && x.items > x.bounds.merge {
		x.merging = slices.Repeat([]bool{true}, len(x.waiting))
	}
}

// plan finds out where members differ and who has something to send.
func (x *exchange) plan() {
	for at := range handlespace.Ranges {
		var synced []int
		x.lowest[at] = true
		for i := range x.digests {
			x.differs[at] = x.differs[at] || !x.agree(i, 0, at)
			if x.agree(i, x.self, at) && x.view.Members[i].Compare(x.view.Members[x.self].Member) < 0 {
				x.lowest[at] = false
			}
			if !x.origins[i].Synced.IsZero() && !slices.ContainsFunc(synced, func(j int) bool { return x.agree(i, j, at) }) {
				synced = append(synced, i)
			}
		}
		x.sides[at] = len(synced)
		if !x.differs[at] {
			continue
		}
		for i, d := range x.digests {
			if d.Entries[at] != 0 || d.Tombstones[at] != 0 {
				x.waiting[i] = true
			}
			if !x.agree(i, x.self, at) || x.sides[at] > 1 {
				x.curious[i] = true
			}
		}
	}
	x.sending = x.waiting[x.self]
}

// agree reports whether two members know the same in a range.
func (x *exchange) agree(i, j, at int) bool {
	a, b := x.digests[i], x.digests[j]
	return a.Entries[at] == b.Entries[at] && a.Tombstones[at] == b.Tombstones[at]
}

// collected reports whether all parts were delivered, complete whether END is all
// that is missing.
func (x *exchange) collected() bool { return x.missing == 0 && !slices.Contains(x.waiting, true) }
func (x *exchange) complete() bool  { return x.collected() && !slices.Contains(x.merging, true) }

// scanning reports whether there is more to send at once, busy whether there is more
// to do without waiting for others.
func (x *exchange) scanning() bool { return x.sending && x.inFlight < x.bounds.window }
func (x *exchange) busy() bool     { return x.scanning() || x.merging != nil && !x.told }

// mergeSome merges a part of many items, or settles some of their pools, and returns
// the message that all are done.
func (x *exchange) mergeSome(r *Replica) (done []byte) {
	if x.merging == nil || x.told {
		return nil
	}
	room := x.bounds.merge
	p := min(len(x.pools), room)
	n := min(x.merged+room-p, len(x.better))
	some := handlespace.Merge{Items: slices.Concat(x.pools[:p], x.better[x.merged:n]), Sides: len(x.view.Members)}
	x.pools, x.merged = x.pools[p:], n
	if len(x.pools) == 0 && n == len(x.better) {
		some.Settle = room - len(some.Items)
	}
	r.apply(0, some)
	if x.told = some.Settle > 0 && r.cfg.Space.Unsettled() == 0; !x.told {
		return nil
	}
	return encodeDone(x.speaks(), x.view.ID)
}

// next returns the messages that are to be sent now.
func (x *exchange) next(space *handlespace.Space, faults fault.Set) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for looked := 0; x.scanning() && looked < x.bounds.scan; {
			space.Scan(&x.cursor, func(item handlespace.Item) bool {
				if looked++; x.mine(&item, faults) {
					x.part.add(&item)
				}
				return len(x.part.octets) < x.bounds.chunk && looked < x.bounds.scan
			})
			if !x.cursor.Done && len(x.part.octets) < x.bounds.chunk {
				return
			}
			x.sending = !x.cursor.Done
			x.inFlight++
			message := encodePart(x.speaks(), x.view.ID, &x.part, x.cursor.Done)
			x.part = part{octets: x.part.octets[:0]}
			if !yield(message) {
				return
			}
		}
	}
}

// mine reports whether it is this member that sends an item, among those that know
// the same.
func (x *exchange) mine(item *handlespace.Item, faults fault.Set) bool {
	at := item.Key().Range()
	if !x.differs[at] || item.Tombstone != nil && faults.Has(fault.WithoutTombstones) {
		return false
	}
	if item.Record != nil {
		home := x.view.Index(memberOf(item.Record.Home()))
		if home >= 0 && x.agree(home, x.self, at) {
			return home == x.self
		}
		if faults.Has(fault.HomesOnly) {
			return false
		}
	}
	return x.lowest[at]
}

// collect takes what member i knows.
func (x *exchange) collect(r *Replica, i int, items []handlespace.Item) {
	var fresh []handlespace.Item
	for _, item := range items {
		key := item.Key()
		at := key.Range()
		x.compare(i, key, item)
		if x.agree(i, x.self, at) {
			continue
		}
		if x.fresh() {
			fresh = append(fresh, item)
		} else if item.Pool != nil {
			x.pools = append(x.pools, item)
		} else if at, ok := x.places[key]; ok {
			if item.Beats(&x.better[at]) && !smaller(r, &item, &x.better[at]) {
				x.better[at] = item
			}
		} else if mine, ok := r.cfg.Space.Find(key); !ok || item.Beats(&mine) && !smaller(r, &item, &mine) {
			x.places[key] = len(x.better)
			x.better = append(x.better, item)
		}
	}
	if len(fresh) > 0 {
		r.apply(0, handlespace.Merge{Items: fresh, Sides: len(x.view.Members)})
	}
}

// smaller is a fault.
func smaller(r *Replica, a, b *handlespace.Item) bool {
	return r.cfg.Faults.Has(fault.MergeByRegistrar) && a.Record != nil && b.Record != nil &&
		a.Record.Home().Compare(b.Record.Home()) < 0
}

// compare remembers what synced sides that met say about an element.
func (x *exchange) compare(i int, key handlespace.Key, item handlespace.Item) {
	if item.Pool != nil || x.origins[i].Synced.IsZero() || x.sides[key.Range()] < 2 {
		return
	}
	t := x.tallies[key]
	if t == nil {
		if len(x.tallies) >= maxTallies {
			x.omitted++
			return
		}
		x.tallies[key] = &tally{kept: item, sides: 1}
		return
	}
	t.sides++
	if item.Beats(&t.kept) {
		t.kept, item = item, t.kept
	}
	if t.kept.Beats(&item) && (t.lost == nil || item.Beats(t.lost)) {
		t.lost = &item
	}
}

// rest returns what is still to be taken over at END.
func (x *exchange) rest() handlespace.Merge {
	return handlespace.Merge{Items: append(x.pools, x.better[x.merged:]...), Marks: x.marks, Sides: len(x.view.Members), End: true}
}

// report tells what differed; false if nobody met.
func (x *exchange) report() (Merged, bool) {
	m := Merged{View: x.view, Octets: x.octets, Omitted: x.omitted}
	for _, o := range x.origins {
		if !o.Synced.IsZero() && !slices.Contains(m.Sides, o.Synced) {
			m.Sides = append(m.Sides, o.Synced)
		}
	}
	slices.SortFunc(m.Sides, ring.ViewID.Compare)
	for key, t := range x.tallies {
		differed := t.lost != nil
		if !differed && (t.kept.Tombstone != nil || t.sides >= x.sides[key.Range()]) {
			continue
		}
		e := handlespace.MergeEntry{Key: key, Kept: t.kept.Generation(), Removed: t.kept.Tombstone != nil}
		if t.kept.Record != nil {
			e.KeptHome = t.kept.Record.Home()
		}
		if differed {
			e.Lost = t.lost.Generation()
			if t.lost.Record != nil {
				e.LostHome = t.lost.Record.Home()
			}
		}
		if m.Entries = append(m.Entries, e); len(m.Entries) == 2*maxReported {
			m.shorten() // sorting all of many takes time, for which a ring does not wait
		}
	}
	m.shorten()
	return m, len(x.view.Members) > 1
}

// shorten keeps the first of the entries.
func (m *Merged) shorten() {
	slices.SortFunc(m.Entries, func(a, b handlespace.MergeEntry) int { return a.Key.Compare(b.Key) })
	if n := len(m.Entries) - maxReported; n > 0 {
		m.Omitted += n
		m.Entries = m.Entries[:maxReported]
	}
}
