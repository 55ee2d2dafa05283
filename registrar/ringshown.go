package registrar

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rserpool/asap/param"
	"rserpool/enrp/ring"
	"rserpool/enrp/ring/ringnet"
	"rserpool/registrar/admin"
	"rserpool/registrar/replica"
)

// How much of the past is kept to be shown.
const (
	shownChanges = 32
	shownMerges  = 16
	shownClashes = 16
)

// ringShown is the ring as administrators and metrics see it. Its methods may be
// called concurrently. Without a ring status is nil.
type ringShown struct {
	feed *admin.Feed
	// status asks the ring's driver, work the owner loop; set before anybody can ask.
	status func(context.Context) (ringnet.Status, error)
	work   func(context.Context) (ringWork, error)
	ack    replica.Ack
	wanted int           // members, for acknowledgements and locks
	skew   time.Duration // beyond which the log warns

	mu      sync.Mutex
	changes []admin.RingChange // newest first
	merges  []admin.RingMerge  // newest first
	// exchange is the one that runs, nil without. What was interrupted goes on in
	// the next.
	exchange *admin.RingExchange
	clashes  []ring.Member // the latest others under the identifiers of members
	clashing uint64        // how many reports of such there were
}

// join notes what is known from the start on.
func (s *ringShown) join(cfg RingConfig, status func(context.Context) (ringnet.Status, error), work func(context.Context) (ringWork, error)) {
	s.status, s.work, s.ack, s.skew = status, work, cfg.Ack, cfg.MaxSkew
	s.wanted = max(cfg.Size, cfg.Ack.MinMembers)
}

// ended notes that the members of the view know the same.
func (s *ringShown) ended() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exchange = nil
}

// clashed notes another live process under the identifier of a member.
func (s *ringShown) clashed(c ring.Clash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clashing++
	s.clashes = slices.Insert(s.clashes, 0, c.Other.Member)[:min(len(s.clashes)+1, shownClashes)]
}

// exchanges notes that the members of a view exchange what they know, if they do. The
// mutex is held.
func (s *ringShown) exchanges(e ring.Installed, self ring.Member, now time.Time) {
	if !e.Exchange {
		s.exchange = nil
		return
	}
	x := &admin.RingExchange{Since: now}
	if s.exchange != nil {
		x.Since = s.exchange.Since
	}
	var mine ring.Origin
	for _, o := range e.Origins {
		if o.Member == self {
			mine = o
		}
	}
	for _, o := range e.Origins {
		if o.Member != self && (o.Installed != mine.Installed || o.With != mine.With) {
			x.With = append(x.With, memberID(o.Member))
		}
	}
	s.exchange = x
}

// installed notes a new view.
func (s *ringShown) installed(e ring.Installed, self ring.Member, now time.Time) {
	c := admin.RingChange{Time: now, View: e.View.ID.String(), Cause: e.Cause.String()}
	s.mu.Lock()
	var before []string
	if len(s.changes) > 0 {
		before = s.changes[0].Members
	}
	for _, n := range e.View.Members {
		name := n.Member.String()
		c.Members = append(c.Members, name)
		if !slices.Contains(before, name) {
			c.Joined = append(c.Joined, name)
		}
	}
	for _, n := range e.Left {
		c.Left = append(c.Left, n.Member.String())
	}
	s.changes = slices.Insert(s.changes, 0, c)[:min(len(s.changes)+1, shownChanges)]
	s.exchanges(e, self, now)
	s.mu.Unlock()
	s.feed.PublishView(c)
}

// merged notes a state exchange and returns it as it is shown.
func (s *ringShown) merged(m replica.Merged, now time.Time) admin.RingMerge {
	out := admin.RingMerge{Time: now, View: m.View.ID.String(), Differences: len(m.Entries) + m.Omitted, Octets: m.Octets}
	for _, side := range m.Sides {
		out.Sides = append(out.Sides, side.String())
	}
	for _, e := range m.Entries {
		out.Entries = append(out.Entries, admin.ShowMergeEntry(e))
	}
	s.mu.Lock()
	s.merges = slices.Insert(s.merges, 0, out)[:min(len(s.merges)+1, shownMerges)]
	s.mu.Unlock()
	s.feed.PublishMerge(out)
	return out
}

// Ring describes the ring.
func (b backend) Ring(ctx context.Context) (admin.Ring, error) { return b.r.shown.ring(ctx) }

func (s *ringShown) ring(ctx context.Context) (admin.Ring, error) {
	if s.status == nil {
		return admin.Ring{}, admin.ErrNoRing
	}
	st, err := s.status(ctx)
	if err != nil {
		return admin.Ring{}, unavailable(fmt.Errorf("ring: %w", err))
	}
	work, err := s.work(ctx)
	if err != nil {
		return admin.Ring{}, unavailable(fmt.Errorf("ring: %w", err))
	}
	out := showRing(st)
	out.Counters.Commands = map[string]uint64{"unreadable": work.Dropped, "no_room": work.Overflown}
	out.Ack, out.HeldAnswers, out.Wanted, out.MaxSkew = showAck(s.ack), work.TooFew, s.wanted, s.skew.Seconds()
	out.Whole = out.Whole && len(out.Members) >= s.wanted
	s.mu.Lock()
	defer s.mu.Unlock()
	out.Changes = slices.Clone(s.changes)
	for i, n := range st.Outside {
		out.Outside[i].Clash = slices.Contains(s.clashes, n.Member)
	}
	if s.exchange != nil && work.Exchanging {
		x := *s.exchange
		x.Commands = work.Queued + work.Stats.Waiting
		for _, m := range work.awaited {
			x.Awaited = append(x.Awaited, memberID(m))
		}
		out.Exchange = &x
	}
	return out, nil
}

func showAck(a replica.Ack) string {
	switch {
	case a.Local:
		return "local"
	case a.MinMembers > 0:
		return fmt.Sprintf("min-members=%d", a.MinMembers)
	}
	return "stable"
}

// RingMerges lists the latest merges.
func (b backend) RingMerges(context.Context) ([]admin.RingMerge, error) {
	s := &b.r.shown
	if s.status == nil {
		return nil, admin.ErrNoRing
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.merges), nil
}

func showRing(st ringnet.Status) admin.Ring {
	out := admin.Ring{
		Cluster: st.Cluster, State: st.State.String(),
		View: st.View.ID.String(), Coordinator: memberID(st.View.ID.Coordinator), Cause: st.Cause.String(),
		Synced: st.Synced == st.View.ID,
		Hop:    st.Hop, Sequence: st.Seq, StableLag: st.Seq - min(st.Seq, st.Stable),
		Rotation: st.Rotation.Seconds(),
		Backlog:  st.Queue + st.Waiting, BacklogOctets: st.QueueOctets + st.WaitingOctets, InToken: st.InToken,
		Changes:  []admin.RingChange{},
		Counters: showCounters(st),
	}
	peers := make(map[ring.Member]ringnet.PeerStatus)
	for _, p := range st.Peers {
		if p.Connected || !peers[p.Member].Connected {
			peers[p.Member] = p
		}
	}
	show := func(n ring.Node) admin.RingMember {
		m := admin.RingMember{
			ID: memberID(n.Member), Incarnation: fmt.Sprint(uint64(n.Incarnation)), Contact: n.Contact, State: admin.MemberAway,
		}
		if until, ok := st.HeldOff[n.ID]; ok {
			m.HeldOff = &until
		}
		p, ok := peers[n.Member]
		switch {
		case n.Member == st.Self.Member:
			m.State = admin.MemberSelf
		case ok:
			if p.Connected {
				m.State = admin.MemberConnected
			}
			if !p.Since.IsZero() {
				m.Since = &p.Since
			}
			m.Error, m.Sent, m.Received, m.Dropped = p.LastError, p.SentOctets, p.ReceivedOctets, p.Dropped
			if k := p.Skew; !k.At.IsZero() {
				m.Clock = &admin.RingClock{Ahead: k.Ahead.Seconds(), Error: k.Error.Seconds()}
			}
		}
		return m
	}
	var contacts []string // in the view
	for _, n := range st.View.Members {
		contacts = append(contacts, strings.Fields(n.Contact)...)
		out.Members = append(out.Members, show(n))
	}
	for _, n := range st.Outside {
		out.Outside = append(out.Outside, show(n))
	}
	for _, p := range st.Peers {
		if p.Member.IsZero() && !slices.Contains(contacts, p.Addr) {
			out.Missing = append(out.Missing, p.Addr)
			if p.LastError != "" {
				if out.MissingErrors == nil {
					out.MissingErrors = make(map[string]string)
				}
				out.MissingErrors[p.Addr] = p.LastError
			}
		}
	}
	out.Whole = out.Synced && len(out.Missing) == 0 && len(out.Outside) == 0
	for _, l := range st.Locks {
		lock := admin.RingLock{Name: l.Name}
		if !l.Holder.IsZero() {
			lock.Holder, lock.Fence = l.Holder.String(), fmt.Sprintf("%d.%d", l.Fence.Counter, l.Fence.Seq)
		}
		for _, m := range l.Queue {
			lock.Queue = append(lock.Queue, m.String())
		}
		out.Locks = append(out.Locks, lock)
	}
	slices.SortFunc(out.Locks, func(a, b admin.RingLock) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// memberID is a member's identifier as that of its registrar.
func memberID(m ring.Member) string { return param.RegistrarID(m.ID).String() }

func showCounters(st ringnet.Status) admin.RingCounters {
	c := st.Counters
	out := admin.RingCounters{
		Views:   make(map[string]uint64),
		Entered: perState(c.Entered), TokenLost: perState(c.TokenLost),
		Refused: notNil(c.Refused), Dropped: notNil(c.Dropped), Connections: notNil(st.Refused),
		Hops: c.Hops, Rotations: c.Rotations, Resent: c.Resent, Duplicate: c.Duplicate, Calls: c.Calls,
		Entries: c.Entries, Octets: c.Octets, HeldOff: c.HeldOff,
		LateHops: c.LateHops, Stalls: c.Stalls,
	}
	for cause, n := range c.Views {
		out.Views[cause.String()] = n
	}
	return out
}

func perState(counts [ring.Left + 1]uint64) map[string]uint64 {
	out := make(map[string]uint64)
	for state, n := range counts {
		if n > 0 {
			out[ring.State(state).String()] = n
		}
	}
	return out
}

func notNil(m map[string]uint64) map[string]uint64 {
	if m == nil {
		return map[string]uint64{}
	}
	return m
}

// ringCollector describes the ring, looked up when metrics are read.
type ringCollector struct{ shown *ringShown }

// metricsPatience bounds how long reading metrics waits for the ring.
const metricsPatience = time.Second

func ringDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("rserpool_ring_"+name, help, labels, nil)
}

var (
	ringViews       = ringDesc("views_total", "Views installed, by cause.", "cause")
	ringStates      = ringDesc("states_total", "States entered.", "state")
	ringTokenLosses = ringDesc("token_losses_total", "Token losses noticed, by the state in which.", "state")
	ringRefused     = ringDesc("calls_refused_total", "Calls of others for a view that were refused.", "reason")
	ringDropped     = ringDesc("messages_dropped_total", "Messages dropped.", "reason")
	ringCommands    = ringDesc("commands_dropped_total", "Commands of members that were dropped: unreadable, or no room until the end of an exchange.", "reason")
	ringConnections = ringDesc("connections_refused_total", "Connections and messages on them that were refused.", "reason")
	ringHops        = ringDesc("hops_total", "Tokens accepted.")
	ringResent      = ringDesc("tokens_resent_total", "Tokens sent again.")
	ringDuplicates  = ringDesc("duplicates_total", "Tokens and messages that were there before.")
	ringEntries     = ringDesc("entries_total", "Entries delivered.")
	ringOctets      = ringDesc("entry_octets_total", "Octets of entries delivered.")
	ringHeldOff     = ringDesc("merges_held_off_total", "Merges refused to unsteady members.")
	ringLateHops    = ringDesc("late_hops_total", "Tokens acknowledged after more than half of the hop time-out.")
	ringClashes     = ringDesc("clashes_total", "Times that another registrar that lives was found under the identifier of a member.")
	ringStalls      = ringDesc("stalls_total", "Times that this member itself was late, because its process or machine was held up.")
	ringMembers     = ringDesc("members", "Members of the view.")
	ringMissing     = ringDesc("missing_members", "Configured members that are not in the view.")
	ringSynced      = ringDesc("synced", "1 if all members of the view know the same.")
	ringRotation    = ringDesc("rotation_seconds", "Time of the latest rotation of the token.")
	ringQueue       = ringDesc("queue_entries", "Own entries that wait for the token.")
	ringQueueOctets = ringDesc("queue_octets", "Octets of own entries that wait for the token.")
	ringStableLag   = ringDesc("stable_lag_entries", "Newest entries that are not known to be everywhere.")
	ringWhole       = ringDesc("whole", "1 if synced, no configured member is missing, and there are as many as wanted.")
	ringHeld        = ringDesc("held_answers", "Acknowledgements that wait for as many members as are wanted.")
	ringExchange    = ringDesc("exchange_seconds", "For how long members have been exchanging what they know; 0 if they are not.")
	ringClock       = ringDesc("clock_ahead_seconds", "Clock of a member less that of this one.", "member")
)

// Describe implements prometheus.Collector.
func (c ringCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		ringViews, ringStates, ringTokenLosses, ringRefused, ringDropped, ringCommands, ringConnections, ringHops, ringResent, ringDuplicates,
		ringEntries, ringOctets, ringHeldOff, ringLateHops, ringClashes, ringStalls, ringMembers, ringMissing, ringSynced, ringRotation,
		ringQueue, ringQueueOctets, ringStableLag, ringWhole, ringHeld, ringExchange, ringClock,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. A ring that does not answer gives
// nothing.
func (c ringCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), metricsPatience)
	defer cancel()
	r, err := c.shown.ring(ctx)
	if err != nil {
		return
	}
	value := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	for _, one := range []struct {
		desc *prometheus.Desc
		by   map[string]uint64
	}{
		{ringViews, r.Counters.Views}, {ringStates, r.Counters.Entered}, {ringTokenLosses, r.Counters.TokenLost},
		{ringRefused, r.Counters.Refused}, {ringDropped, r.Counters.Dropped},
		{ringCommands, r.Counters.Commands}, {ringConnections, r.Counters.Connections},
	} {
		for label, n := range one.by {
			value(one.desc, prometheus.CounterValue, float64(n), label)
		}
	}
	c.shown.mu.Lock()
	clashing := c.shown.clashing
	c.shown.mu.Unlock()
	for desc, n := range map[*prometheus.Desc]uint64{
		ringClashes: clashing,
		ringHops:    r.Counters.Hops, ringResent: r.Counters.Resent, ringDuplicates: r.Counters.Duplicate,
		ringEntries: r.Counters.Entries, ringOctets: r.Counters.Octets, ringHeldOff: r.Counters.HeldOff,
		ringLateHops: r.Counters.LateHops, ringStalls: r.Counters.Stalls,
	} {
		value(desc, prometheus.CounterValue, float64(n))
	}
	is := func(condition bool) float64 {
		if condition {
			return 1
		}
		return 0
	}
	exchange := 0.0
	if r.Exchange != nil {
		exchange = time.Since(r.Exchange.Since).Seconds()
	}
	for _, m := range r.Members {
		if m.Clock != nil {
			value(ringClock, prometheus.GaugeValue, m.Clock.Ahead, m.ID)
		}
	}
	for desc, v := range map[*prometheus.Desc]float64{
		ringMembers: float64(len(r.Members)), ringMissing: float64(len(r.Missing) + len(r.Outside)), ringSynced: is(r.Synced),
		ringRotation: r.Rotation, ringQueue: float64(r.Backlog), ringQueueOctets: float64(r.BacklogOctets),
		ringStableLag: float64(r.StableLag), ringWhole: is(r.Whole), ringHeld: float64(r.HeldAnswers), ringExchange: exchange,
	} {
		value(desc, prometheus.GaugeValue, v)
	}
}
