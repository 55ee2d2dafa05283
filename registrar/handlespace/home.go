package handlespace

import (
	"bytes"
	"slices"
	"time"

	"rserpool/asap/param"
)

func (s *Space) imported(c *Import) {
	p, e := s.place(c.Handle, c.Element.ID)
	reject := func(causes ...param.Cause) { s.emit(Rejected{c.Handle, c.Element.ID, causes}) }
	content, err := encode(s.octets, &c.Element)
	switch {
	case err != nil || c.Handle == "" || c.Element.ID == 0:
		reject(param.ElementCause(param.CauseInvalidValues, &c.Element))
		return
	case content.asap > s.cfg.MaxElementSize || !e.there() && s.full("", p):
		reject(param.NewCause(param.CauseLackOfResources))
		return
	}
	home := HomeID{ID: c.Element.Home}
	if e.there() {
		if previous := e.record.Load(); previous.Home() == home && bytes.Equal(previous.octets(), content.octets) {
			r := previous.changed()
			r.Refreshed = c.Now
			r.sound()
			s.replace(p, e, r, &c.Element, s.reporters[e])
			s.emit(Registered{Handle: p.handle, Record: r, Previous: previous, Imported: true})
			return
		}
	}
	r := newRecord(c.Handle, &c.Element, content)
	r.Generation = s.raised(e, home, c.Now)
	r.registered, r.Refreshed, r.Confirmed = nanoseconds(c.Now), c.Now, true
	previous, created := s.put(p, e, r, &c.Element, nil, "")
	s.emit(Registered{Handle: r.Handle, Record: r, Previous: previous, PoolCreated: created, Imported: true})
}

func equal(a, b *param.Transport) bool {
	return a.Type == b.Type && a.Port == b.Port && a.Use == b.Use && a.ServiceCode == b.ServiceCode &&
		slices.Equal(a.Addrs, b.Addrs) && bytes.Equal(a.Opaque, b.Opaque)
}

func (s *Space) forget(c *Forget) {
	p, e := s.find(c.Handle, c.ID)
	if e == nil {
		return
	}
	r := e.record.Load()
	if c.Home != 0 && r.home() != c.Home || !c.Generation.IsZero() && r.Generation != c.Generation {
		return
	}
	raised := s.raised(e, HomeID{ID: c.Raiser}, c.Now)
	s.drop(p, e, Withdrawn, s.buried(r, raised, c.Now))
}

func (s *Space) takeover(c *Takeover) {
	if len(c.To) == 0 || slices.Contains(c.To, c.From) {
		return
	}
	for i, previous := range s.lived(c.From, c.Limit) {
		r := previous.changed()
		r.move(c.To[i%len(c.To)])
		p, e := s.find(r.Handle, r.ID)
		s.replace(p, e, r, nil, s.reporters[e])
		s.emit(Rehomed{r.Handle, r, previous})
	}
}

func (s *Space) confirm(c *Confirm) {
	p, e := s.find(c.Handle, c.ID)
	if e == nil {
		return
	}
	previous := e.record.Load()
	if previous.Generation != c.Generation || previous.Home() != c.Home || previous.Confirmed {
		return
	}
	r := previous.changed()
	r.Generation = s.raised(e, c.Home, c.Now)
	r.Generation.Content = previous.Generation.Content
	r.Refreshed, r.Confirmed = c.Now, true
	r.sound()
	s.replace(p, e, r, nil, s.reporters[e])
	s.emit(Confirmed{p.handle, r, previous})
}

func (s *Space) holdBack(until time.Time) {
	if until.After(s.marks.HeldBack) {
		s.marks.HeldBack = until
	}
	s.index.heldBack(s.marks.HeldBack)
}
