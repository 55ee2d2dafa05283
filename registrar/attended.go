package registrar

import "net/netip"

// attended is what the owner loop keeps of an element besides its record: how it is
// watched, over which connection it is reached, and for which client it counts.
type attended struct {
	watch
	conn   *conn      // nil: none
	place  int        // among the elements of conn
	client netip.Addr // invalid: it counts for none
}

// attended returns what is kept of an element; if that is nothing, it is kept from
// now on.
func (o *owner) attended(key elementKey) *attended {
	a := o.elements[key]
	if a == nil {
		a = &attended{watch: watch{key: key}}
		o.elements[key] = a
	}
	return a
}

// tidy forgets an element of which nothing is kept any more.
func (o *owner) tidy(a *attended) {
	if a.phase == unwatched && a.conn == nil && !a.client.IsValid() {
		delete(o.elements, a.key)
	}
}

// release ends what this registrar does for an element that is gone, or has another
// home now.
func (o *owner) release(key elementKey) {
	if a := o.elements[key]; a != nil {
		o.keepAlive.forget(&a.watch)
		o.clients.remove(a)
		o.unbind(a)
		delete(o.elements, key)
	}
}

// watched returns how an element is watched, or how one is that is not.
func (o *owner) watched(key elementKey) *watch {
	if a := o.elements[key]; a != nil {
		return &a.watch
	}
	return &watch{key: key}
}

// reach returns the connection over which an element is reached, nil if there is none.
func (o *owner) reach(key elementKey) *conn {
	if a := o.elements[key]; a != nil {
		return a.conn
	}
	return nil
}

// bind makes c the connection over which an element is reached.
func (o *owner) bind(a *attended, c *conn) {
	if a.conn == c {
		return
	}
	o.unbind(a)
	a.conn, a.place = c, len(c.elements)
	c.elements = append(c.elements, a)
}

func (o *owner) unbind(a *attended) {
	c := a.conn
	if c == nil {
		return
	}
	last := len(c.elements) - 1
	c.elements[a.place] = c.elements[last]
	c.elements[a.place].place = a.place
	c.elements[last] = nil
	c.elements = c.elements[:last]
	a.conn = nil
	o.probes.release(c)
}
