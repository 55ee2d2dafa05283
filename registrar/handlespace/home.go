package handlespace

import (
	"bytes"
	"slices"
	"time"

	"rserpool/asap/param"
)

func (s *Space) imported(c *Import) []Event {
	p, e := s.find(c.Handle, c.Element.ID)
	reject := func(causes ...param.Cause) []Event {
		return []Event{Rejected{c.Handle, c.Element.ID, causes}}
	}
	encoded, err := param.AppendPoolElement(nil, &c.Element, false)
	switch {
	case err != nil || c.Handle == "" || c.Element.ID == 0:
		return reject(param.ElementCause(param.CauseInvalidValues, &c.Element))
	case len(encoded) > s.cfg.MaxElementSize || e == nil && s.full("", p):
		return reject(param.NewCause(param.CauseLackOfResources))
	}
	home := HomeID{ID: c.Element.Home}
	if e != nil && e.record.Home() == home && bytes.Equal(e.record.encoded, encoded) && equal(&e.record.Element.ASAP, &c.Element.ASAP) {
		previous, r := e.record, *e.record
		r.refresh(c.Now)
		r.sound()
		s.replace(p, e, &r, e.reporters)
		p.renew(e)
		return []Event{Registered{Handle: p.handle, Record: &r, Previous: previous, Imported: true}}
	}
	r := &Record{
		Handle:     c.Handle,
		Element:    c.Element,
		Generation: s.raised(Key{c.Handle, c.Element.ID}, e, home, c.Now),
		Registered: c.Now,
		Confirmed:  true,
		encoded:    encoded,
	}
	r.refresh(c.Now)
	previous, created := s.put(p, e, r, nil, "")
	return []Event{Registered{Handle: r.Handle, Record: r, Previous: previous, PoolCreated: created, Imported: true}}
}

func equal(a, b *param.Transport) bool {
	return a.Type == b.Type && a.Port == b.Port && a.Use == b.Use && a.ServiceCode == b.ServiceCode &&
		slices.Equal(a.Addrs, b.Addrs) && bytes.Equal(a.Opaque, b.Opaque)
}

func (s *Space) forget(c *Forget) []Event {
	p, e := s.find(c.Handle, c.ID)
	if e == nil || c.Home != 0 && e.record.Element.Home != c.Home ||
		!c.Generation.IsZero() && e.record.Generation != c.Generation {
		return nil
	}
	raised := s.raised(e.record.Key(), e, HomeID{ID: c.Raiser}, c.Now)
	return s.drop(p, e, Withdrawn, s.buried(e.record, raised, c.Now))
}

func (s *Space) takeover(c *Takeover) []Event {
	if len(c.To) == 0 || slices.Contains(c.To, c.From) {
		return nil
	}
	var events []Event
	for _, previous := range s.lived(c.From, c.Limit) {
		r := *previous
		home := c.To[len(events)%len(c.To)]
		r.Element.Home, r.HomeIncarnation, r.Confirmed = home.ID, home.Incarnation, false
		r.encode()
		p, e := s.find(r.Handle, r.Element.ID)
		s.replace(p, e, &r, e.reporters)
		events = append(events, Rehomed{r.Handle, &r, previous})
	}
	return events
}

// lived returns the elements of one life of a home in the order of their keys, up
// to limit if that is not 0.
func (s *Space) lived(home HomeID, limit int) (out []*Record) {
	n := s.index.lives[home]
	if limit > 0 {
		n = min(n, limit)
	}
	s.index.homes.AscendGreaterOrEqual(homed{home: home.ID}, func(h homed) bool {
		if h.home != home.ID || len(out) == n {
			return false
		}
		if h.record.HomeIncarnation == home.Incarnation {
			out = append(out, h.record)
		}
		return true
	})
	return out
}

func (s *Space) confirm(c *Confirm) []Event {
	p, e := s.find(c.Handle, c.ID)
	if e == nil || e.record.Generation != c.Generation || e.record.Home() != c.Home || e.record.Confirmed {
		return nil
	}
	previous, r := e.record, *e.record
	r.Generation = s.raised(r.Key(), e, c.Home, c.Now)
	r.Generation.Content = previous.Generation.Content
	r.Confirmed = true
	r.sound()
	r.refresh(c.Now)
	s.replace(p, e, &r, e.reporters)
	return []Event{Confirmed{p.handle, &r, previous}}
}

func (s *Space) holdBack(until time.Time) {
	if until.After(s.marks.HeldBack) {
		s.marks.HeldBack = until
	}
	s.index.heldBack(s.marks.HeldBack)
}
