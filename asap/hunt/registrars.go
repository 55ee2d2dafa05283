package hunt

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
)

// Names of the networks that announcements can speak of.
const (
	sctp = "sctp"
	tcp  = "tcp"
)

const (
	// maxPerAnnouncement bounds the transports taken from one announcement.
	maxPerAnnouncement = 16
	// maxAdopted bounds the registrars remembered because they took over.
	maxAdopted = 8
)

// Endpoint is where a registrar takes ASAP requests.
type Endpoint struct {
	// Network is the name of the network: "sctp", "tcp" or "mem".
	Network string
	// Addrs are the endpoint's addresses, at least one. On SCTP they are one
	// multi-homed endpoint, elsewhere alternatives.
	Addrs []netip.AddrPort
}

// String returns the endpoint in the form network://addr,addr.
func (e Endpoint) String() string {
	var b strings.Builder
	b.WriteString(e.Network)
	b.WriteString("://")
	for i, a := range e.Addrs {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(a.String())
	}
	return b.String()
}

// registrar is one known registrar transport.
type registrar struct {
	endpoint Endpoint
	static   bool
	// expires is when T7 ends; zero for those that don't expire by time.
	expires time.Time
	// tried is the number of the latest attempt, 0 for none: the least
	// recently tried comes first, so rounds differ where they can.
	tried uint64
	// round is the hunt round of the latest attempt.
	round uint64
	// notBefore delays the next attempt.
	notBefore time.Time
	// rank breaks ties among registrars that were never tried.
	rank float64
}

// pulse is what is remembered of one announcing registrar: its latest
// intervals only, so that an outage doesn't count as its interval for ever.
type pulse struct {
	last      time.Time
	n         int
	intervals [4]time.Duration
}

// list is the list of known registrars (RFC 5352, section 3.6).
type list struct {
	cfg       *Config
	known     map[string]*registrar
	announced int      // number of known that are not static
	adopted   []string // keys of those known from adopt, oldest first
	pulses    map[param.RegistrarID]*pulse
	ignored   uint64
}

func newList(cfg *Config) *list {
	return &list{cfg: cfg, known: map[string]*registrar{}, pulses: map[param.RegistrarID]*pulse{}}
}

// setStatic replaces the static registrars.
func (l *list) setStatic(endpoints []Endpoint) {
	keep := map[string]bool{}
	for _, e := range endpoints {
		if len(e.Addrs) == 0 {
			continue
		}
		key := e.String()
		keep[key] = true
		switch r := l.known[key]; {
		case r == nil:
			l.known[key] = l.newRegistrar(e, true, time.Time{})
		case !r.static:
			r.static, r.expires = true, time.Time{}
			l.announced--
		}
	}
	for key, r := range l.known {
		if r.static && !keep[key] {
			delete(l.known, key)
		}
	}
}

func (l *list) newRegistrar(e Endpoint, static bool, expires time.Time) *registrar {
	// Without randomness the order of arrival counts.
	rank := l.cfg.Rand()
	if rank == 0 {
		rank = 1 + float64(len(l.known))
	}
	return &registrar{endpoint: e, static: static, expires: expires, rank: rank}
}

// adopt adds a registrar that took over. It does not expire by time; the oldest
// such makes room for a new one, as anybody can say that he took over.
func (l *list) adopt(e Endpoint) {
	if !l.learn(e, time.Time{}) {
		return
	}
	l.adopted = append(l.adopted, e.String())
	if len(l.adopted) <= maxAdopted {
		return
	}
	oldest := l.adopted[0]
	l.adopted = l.adopted[1:]
	if r := l.known[oldest]; r != nil && !r.static {
		delete(l.known, oldest)
		l.announced--
	}
}

// learn adds a registrar that isn't static, or extends its life if that has an
// end. It reports whether the registrar is new.
func (l *list) learn(e Endpoint, expires time.Time) bool {
	key := e.String()
	if r := l.known[key]; r != nil {
		if !r.expires.IsZero() && !expires.IsZero() {
			r.expires = expires
		}
		return false
	}
	if l.announced >= l.cfg.MaxAnnounced {
		l.ignored++
		return false
	}
	l.known[key] = l.newRegistrar(e, false, expires)
	l.announced++
	return true
}

// announce takes in an announcement. It reports whether a registrar is new.
func (l *list) announce(msg *asap.ServerAnnounce, source netip.AddrPort, now time.Time) bool {
	expires := now.Add(l.life(msg.Registrar, now))
	if len(msg.Transports) == 0 {
		port := uint16(asap.Port)
		if l.cfg.Ordered {
			port = source.Port() // rsplib's registrars announce from their SCTP port
		}
		return l.learn(Endpoint{sctp, []netip.AddrPort{netip.AddrPortFrom(source.Addr().Unmap(), port)}}, expires)
	}
	isNew := false
	for i, t := range msg.Transports {
		if i == maxPerAnnouncement {
			l.ignored++
			break
		}
		e, ok := announcedEndpoint(t, source.Addr().Unmap())
		if !ok {
			l.ignored++
			continue
		}
		isNew = l.learn(e, expires) || isNew
	}
	return isNew
}

// life returns T7 for the registrar, which announced itself just now.
func (l *list) life(id param.RegistrarID, now time.Time) time.Duration {
	p := l.pulses[id]
	if p == nil {
		if len(l.pulses) >= l.cfg.MaxAnnounced {
			return l.cfg.T7
		}
		l.pulses[id] = &pulse{last: now}
		return l.cfg.T7
	}
	p.intervals[p.n%len(p.intervals)] = min(now.Sub(p.last), l.cfg.RetranMax)
	p.n++
	p.last = now
	return max(l.cfg.T7, 3*slices.Max(p.intervals[:]))
}

// announcedEndpoint returns the usable endpoint in an announced transport.
// Loopback addresses are good only on the host that announced them.
func announcedEndpoint(t param.Transport, source netip.Addr) (Endpoint, bool) {
	e := Endpoint{}
	switch t.Type {
	case param.TypeSCTPTransport:
		e.Network = sctp
	case param.TypeTCPTransport:
		e.Network = tcp
	}
	if e.Network == "" || t.Port == 0 {
		return Endpoint{}, false
	}
	for _, a := range t.AddrPorts() {
		ip := a.Addr()
		if ip.IsUnspecified() || ip.IsMulticast() || (ip.IsLoopback() && !source.IsLoopback()) {
			continue
		}
		e.Addrs = append(e.Addrs, a)
	}
	return e, len(e.Addrs) > 0
}

// expire forgets what T7 has ended for.
func (l *list) expire(now time.Time) {
	for key, r := range l.known {
		if !r.expires.IsZero() && !r.expires.After(now) {
			delete(l.known, key)
			l.announced--
		}
	}
	// A pulse outlives the addresses, so that long intervals can be seen.
	for id, p := range l.pulses {
		if now.Sub(p.last) > 3*l.cfg.RetranMax {
			delete(l.pulses, id)
		}
	}
}

func (l *list) deadline() (at time.Time) {
	for _, r := range l.known {
		at = earlier(at, r.expires)
	}
	for _, p := range l.pulses {
		at = earlier(at, p.last.Add(3*l.cfg.RetranMax+1))
	}
	return at
}

// inOrder returns the registrars in the order in which a hunt tries them.
func (l *list) inOrder() []*registrar {
	out := make([]*registrar, 0, len(l.known))
	for _, r := range l.known {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *registrar) int {
		return cmp.Or(cmp.Compare(a.tried, b.tried), cmp.Compare(a.rank, b.rank), cmp.Compare(a.endpoint.String(), b.endpoint.String()))
	})
	return out
}

// earlier returns the earlier of two times; the zero time stands for never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
