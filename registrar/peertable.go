package registrar

import (
	"slices"

	"rserpool/asap/param"
	enrppeer "rserpool/enrp/peer"
	"rserpool/enrp/ring"
	"rserpool/registrar/handlespace"
)

// peerTable is the handlespace as the machine of RFC 5353 reads it.
type peerTable struct {
	r       *Registrar
	pending map[param.RegistrarID]int
}

// Checksum implements enrppeer.Table.
func (t peerTable) Checksum(home param.RegistrarID) uint16 { return t.r.space.Home(home).Checksum() }

// Settled implements enrppeer.Table.
func (t peerTable) Settled(home param.RegistrarID) bool { return t.pending[home] == 0 }

// Homes implements enrppeer.Table. Members of the ring are none of the machine's.
func (t peerTable) Homes() []param.RegistrarID {
	var out []param.RegistrarID
	for _, h := range t.r.space.HomeIDs() {
		if h.Incarnation == 0 {
			out = append(out, h.ID)
		}
	}
	return out
}

// Elements implements enrppeer.Table.
func (t peerTable) Elements(dst []enrppeer.Element, home param.RegistrarID, after enrppeer.Key, max int) []enrppeer.Element {
	key := handlespace.Key(after)
	records := t.r.space.Owned(nil, home, key, max)
	if home == 0 {
		records = t.all(key, max)
	}
	for _, r := range records {
		dst = append(dst, t.element(r))
	}
	return dst
}

// all returns some elements behind a key, in the order of keys.
func (t peerTable) all(after handlespace.Key, max int) []*handlespace.Record {
	records := t.r.space.Elements(nil, after.Handle, after.ID, max)
	for len(records) == 0 {
		pools := t.r.space.Pools(nil, after.Handle, 1)
		if len(pools) == 0 {
			return nil
		}
		after.Handle = pools[0].Handle
		records = t.r.space.Elements(nil, after.Handle, 0, max)
	}
	return records
}

// element is an element as other registrars are told of it.
func (t peerTable) element(r *handlespace.Record) enrppeer.Element {
	e := r.Element()
	if e.ASAP.IsZero() {
		// Between registrars the parameter is mandatory (AMB-25). An
		// administrator's element has none: its registrar stands for it.
		e.ASAP = t.r.asap
	}
	if t.r.rsplib() {
		e.Life = rsplibMilliseconds(e.Life)
		e.ASAP = tcpAsSCTP(e.ASAP)
	}
	return enrppeer.Element{Handle: r.Handle, PoolElement: e}
}

// tcpAsSCTP tells an ASAP transport over TCP as one over SCTP, for registrars that know
// no ASAP over TCP: rsplib's refuse such an element, and a whole part of a handle table
// for one in it. When they have taken the element over they don't reach it, and remove
// it: it looks for another registrar by itself.
func tcpAsSCTP(t param.Transport) param.Transport {
	if t.Type == param.TypeTCPTransport {
		t.Type = param.TypeSCTPTransport
	}
	return t
}

// clusterView is who belongs to the ring, as far as peers are concerned.
type clusterView struct {
	self    handlespace.HomeID
	members []ring.Node
	known   map[param.RegistrarID]bool // members at any time
}

// follow takes the members of a view, and reports whether they are others than
// before.
func (v *clusterView) follow(members []ring.Node) bool {
	same := slices.EqualFunc(v.members, members, func(a, b ring.Node) bool { return a.Member == b.Member })
	v.members = members
	for _, n := range members {
		v.known[param.RegistrarID(n.ID)] = true
	}
	return !same
}

// has reports whether a registrar belongs to the ring, now or formerly.
func (v *clusterView) has(id param.RegistrarID) bool { return v.known[id] && id != v.self.ID }

// alive reports whether a registrar is a member of the view.
func (v *clusterView) alive(id param.RegistrarID) bool {
	return slices.ContainsFunc(v.members, func(n ring.Node) bool { return param.RegistrarID(n.ID) == id })
}

// lives reports whether a home is a member of the view; this registrar is, always.
func (v *clusterView) lives(home handlespace.HomeID) bool {
	return home == v.self || slices.ContainsFunc(v.members, func(n ring.Node) bool {
		return home == handlespace.HomeID{ID: param.RegistrarID(n.ID), Incarnation: uint64(n.Incarnation)}
	})
}

// coordinates reports whether this registrar speaks for the ring. Without one it
// speaks for itself.
func (v *clusterView) coordinates() bool {
	return len(v.members) == 0 || param.RegistrarID(v.members[0].ID) == v.self.ID
}
