package peer

import (
	"time"

	"rserpool/asap/param"
	"rserpool/enrp"
)

// download is a handle table on its way here: all of it at the start, or the
// elements of one peer to bring them in line (section 3.6.3).
type download struct {
	own      bool // the W bit
	deadline time.Time
	marked   map[Key]bool // elements of the peer that have not come yet; own only
	touched  map[Key]bool // changed since it was asked for: the table is older (AMB-68)
}

func newDownload(own bool) *download {
	return &download{own: own, marked: make(map[Key]bool), touched: make(map[Key]bool)}
}

// audit is how often a peer's checksum was wrong in vain.
type audit struct {
	sum   uint16
	wait  time.Duration
	again time.Time
}

// auditWaitMax is the longest time between two attempts to bring a peer's elements
// in line when its checksum stays what it was and remains different.
const auditWaitMax = 5 * time.Minute

// compare audits a peer: its checksum over its elements is to be the same as ours
// (section 3.6.1).
func (m *Machine) compare(p *peer, sum uint16, now time.Time) {
	if p.sync != nil || !m.Serving() || !m.cfg.Table.Settled(p.id) {
		return
	}
	if m.cfg.Table.Checksum(p.id) == sum {
		p.audit = audit{}
		return
	}
	if a := &p.audit; a.wait > 0 && a.sum == sum {
		if now.Before(a.again) {
			return
		}
		a.wait = min(2*a.wait, auditWaitMax)
	} else {
		*a = audit{sum: sum, wait: m.cfg.Timers.NoResponse}
	}
	p.audit.again = now.Add(p.audit.wait)
	p.sync = newDownload(true)
	m.each(p.id, func(e Element) { p.sync.marked[e.Key()] = true })
	m.askTable(p.link, p.id, p.sync, now)
}

// each visits the elements of a home; all for 0.
func (m *Machine) each(home param.RegistrarID, visit func(Element)) {
	var after Key
	var chunk []Element
	for {
		chunk = m.cfg.Table.Elements(chunk[:0], home, after, tableChunk)
		if len(chunk) == 0 {
			return
		}
		for _, e := range chunk {
			visit(e)
			after = e.Key()
		}
	}
}

// tableChunk is how many elements are looked up at a time.
const tableChunk = 64

func (m *Machine) askTable(l Link, id param.RegistrarID, d *download, now time.Time) {
	d.deadline = now.Add(m.cfg.Timers.NoResponse)
	m.send(l, &enrp.HandleTableRequest{Servers: m.to(id), OwnOnly: d.own})
}

// table takes a part of a handle table. The response does not say what it answers;
// it is the start's while that waits for one on this link.
func (m *Machine) table(p *peer, l Link, msg *enrp.HandleTableResponse, now time.Time) {
	s := &m.start
	d := p.sync
	first := s.phase == loading && s.link == l
	if first {
		d = s.load
	}
	if d == nil {
		return
	}
	if msg.Reject {
		if first {
			m.refusedBy(p, now)
		} else {
			p.sync = nil // ENRP-3.6.3-08
		}
		return
	}
	for _, pool := range msg.Pools {
		for _, e := range pool.Elements {
			m.install(p, d, Element{pool.Handle, e})
		}
	}
	switch {
	case msg.More:
		m.askTable(l, p.id, d, now)
		if first {
			s.deadline = d.deadline
		}
	case first:
		m.serve(false, now)
	default:
		p.sync = nil
		m.purge(p.id, d)
	}
}

// install takes one element of a table, unless something newer is known.
func (m *Machine) install(p *peer, d *download, e Element) {
	if e.Home == 0 {
		e.Home = p.id
	}
	delete(d.marked, e.Key())
	switch {
	case d.touched[e.Key()],
		e.Home == m.self || m.cfg.InCluster(e.Home), // nobody knows that better than we do
		d.own && e.Home != p.id:
		return
	}
	m.do(Import{From: p.id, Element: e})
}

// purge removes the elements that a peer does not have any more, and tells nobody.
func (m *Machine) purge(home param.RegistrarID, d *download) {
	m.each(home, func(e Element) {
		if d.marked[e.Key()] && !d.touched[e.Key()] {
			m.do(Forget{From: home, Key: e.Key(), Home: home})
		}
	})
}

// touch notes that an element has just changed otherwise.
func (m *Machine) touch(k Key) {
	if m.start.load != nil {
		m.start.load.touched[k] = true
	}
	for _, p := range m.peers {
		if p.sync != nil {
			p.sync.touched[k] = true
		}
	}
}

// update takes a handle update (section 3.3). It is never passed on.
func (m *Machine) update(from *peer, msg *enrp.HandleUpdate) {
	e := Element{msg.Handle, msg.Element}
	if e.Home == 0 { // AMB-74
		e.Home = from.id
	}
	switch {
	case msg.Action == enrp.DelPE:
		m.touch(e.Key())
		m.do(Forget{From: from.id, Key: e.Key()})
	case e.Home == m.self || m.cfg.InCluster(e.Home):
		// What is ours is for us to announce.
	default:
		m.touch(e.Key())
		m.do(Import{From: from.id, Element: e})
	}
}

// list answers who asks for the registrars that this one knows (AMB-49).
func (m *Machine) list(l Link, asker param.RegistrarID) {
	answer := &enrp.ListResponse{Servers: m.to(asker), Reject: !m.Serving()}
	if !answer.Reject {
		for _, p := range m.sorted() {
			if p.id != asker && !p.transport.IsZero() && p.monitored() {
				answer.Peers = append(answer.Peers, param.ServerInformation{ID: p.id, Transport: p.transport})
			}
		}
	}
	m.send(l, answer)
}

// position is how far a download by the other side has got (AMB-39).
type position struct {
	after Key
	at    time.Time // zero: nowhere
}

// page answers with the next part of the handle table (section 3.2.3).
func (m *Machine) page(l Link, conn *link, msg *enrp.HandleTableRequest, now time.Time) {
	if !m.Serving() {
		m.send(l, &enrp.HandleTableResponse{Servers: m.to(msg.Sender), Reject: true})
		return
	}
	at, home := &conn.tables[0], param.RegistrarID(0)
	if msg.OwnOnly {
		at, home = &conn.tables[1], m.self
	}
	var after Key
	if !at.at.IsZero() && now.Sub(at.at) <= m.cfg.Timers.NoResponse {
		after = at.after
	}
	page := enrp.BeginTable(nil, m.to(msg.Sender), m.cfg.Limits.Page)
	more := false
	var chunk []Element
	var encoded []byte
	for !more {
		chunk = m.cfg.Table.Elements(chunk[:0], home, after, tableChunk)
		if len(chunk) == 0 {
			break
		}
		for i := range chunk {
			e := &chunk[i]
			tlv, err := param.AppendPoolElement(encoded[:0], &e.PoolElement, true)
			// One that can't be encoded can't be told to anybody.
			if encoded = tlv; err == nil && !page.Element(e.Handle, encoded) {
				more = true
				break
			}
			after = e.Key()
		}
	}
	*at = position{}
	if more {
		*at = position{after, now}
	}
	octets, err := page.Finish(more)
	if err != nil {
		m.send(l, &enrp.HandleTableResponse{Servers: m.to(msg.Sender), Reject: true})
		return
	}
	m.do(Send{Link: l, Octets: octets})
}
