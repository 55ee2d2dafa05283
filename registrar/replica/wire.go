package replica

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"rserpool/asap/param"
	"rserpool/enrp/ring"
	"rserpool/registrar/handlespace"
)

// A payload is
//
//	version(1) kind(1) body
//
// with all numbers in network byte order, texts and lists behind their length, times
// in ns since 1970 (0: none), and elements as Pool Element parameters.
//
// version is the highest version that this program knows; it knows all before. Members
// write what all of the view know: each tells its highest version in its hello, and
// from END on they use the lowest of these. What was written in a higher one before a
// member of an earlier version came counts for nobody, alike at all: its proposer is
// told so. A new kind, another format or meaning of one, other bounds of an exchange, and
// whatever else goes into digests (which removals are forgotten when there are too many,
// too) need a new version. Items have none of their own: their part has. A hello is of
// version 1 for good; later versions add to its end.
const version = 1

type kind uint8

const (
	kindRegister kind = iota + 1
	kindDeregister
	kindRemove
	kindReport
	kindAlive
	kindImport
	kindForget
	kindTakeover
	kindConfirm
	kindHoldBack
	kindSweep

	kindHello kind = 0x40
	kindPart  kind = 0x41
	kindDone  kind = 0x42
)

// Kinds of items.
const (
	itemRecord = iota + 1
	itemTombstone
	itemPool
)

// message is a decoded payload: a command, or a part of an exchange.
type message struct {
	version uint8
	// view is that of the exchange, or the only one in which the command counts
	// if it is not zero.
	view    ring.ViewID
	command handlespace.Command

	digest  *handlespace.Digest // a hello
	marks   handlespace.Marks
	highest uint8 // version that the sender knows
	part    part
	last    bool
	done    bool // with all items
}

// part is some of what a member knows, as it travels. How many items it has can be told
// without decoding them, for members that know the same.
type part struct {
	items  int
	octets []byte
}

var (
	errVersion = errors.New("replica: payload of an unknown version or kind")
	errPayload = errors.New("replica: malformed payload")
)

// encodeCommand returns the payload of a command, which counts only in one view if
// that is not zero, in a version.
func encodeCommand(v uint8, cmd handlespace.Command, only ring.ViewID) ([]byte, error) {
	w := writer{buf: make([]byte, 2, 256)}
	var k kind
	switch c := cmd.(type) {
	case handlespace.Register:
		k = kindRegister
		w.text(string(c.Handle))
		w.element(&c.Element)
		w.home(handlespace.HomeID{ID: c.Raiser, Incarnation: c.Incarnation})
		w.generation(c.Conflict)
		w.text(c.Owner)
		w.time(c.Now)
	case handlespace.Deregister:
		k = kindDeregister
		w.key(c.Handle, c.ID)
		w.addrs(c.From)
		w.home(handlespace.HomeID{ID: c.Raiser, Incarnation: c.Incarnation})
		w.time(c.Now)
	case handlespace.Remove:
		k = kindRemove
		w.meant(c.Handle, c.ID, c.Generation)
		w.u8(uint8(c.Cause))
		w.time(c.Now)
	case handlespace.Report:
		k = kindReport
		w.meant(c.Handle, c.ID, c.Generation)
		w.text(c.Reporter)
		w.time(c.Now)
	case handlespace.Alive:
		k = kindAlive
		w.meant(c.Handle, c.ID, c.Generation)
		w.time(c.Now)
	case handlespace.Import:
		k = kindImport
		w.text(string(c.Handle))
		w.element(&c.Element)
		w.time(c.Now)
	case handlespace.Forget:
		k = kindForget
		w.meant(c.Handle, c.ID, c.Generation)
		w.u32(uint32(c.Home))
		w.u32(uint32(c.Raiser))
		w.time(c.Now)
	case handlespace.Takeover:
		k = kindTakeover
		w.view(only)
		w.home(c.From)
		w.count(len(c.To))
		for _, h := range c.To {
			w.home(h)
		}
		w.u32(uint32(c.Limit))
		w.time(c.Now)
	case handlespace.Confirm:
		k = kindConfirm
		w.meant(c.Handle, c.ID, c.Generation)
		w.home(c.Home)
		w.time(c.Now)
	case handlespace.HoldBack:
		k = kindHoldBack
		w.time(c.Now)
	case handlespace.Sweep:
		k = kindSweep
		w.time(c.Now)
	default:
		return nil, fmt.Errorf("replica: %T is not for others", cmd)
	}
	w.buf[0], w.buf[1] = v, byte(k)
	if w.err != nil {
		return nil, fmt.Errorf("replica: %T: %w", cmd, w.err)
	}
	return w.buf, nil
}

// encodeHello tells the highest version that this member knows.
func encodeHello(highest uint8, view ring.ViewID, d *handlespace.Digest, m handlespace.Marks) []byte {
	w := writer{buf: append(make([]byte, 0, 64+16*handlespace.Ranges), 1, byte(kindHello))}
	w.view(view)
	w.u8(highest)
	w.u64(m.Stamp)
	w.time(m.HeldBack)
	for i := range handlespace.Ranges {
		w.u64(d.Entries[i])
		w.u64(d.Tombstones[i])
	}
	return w.buf
}

func encodePart(v uint8, view ring.ViewID, p *part, last bool) []byte {
	w := writer{buf: append(make([]byte, 0, 32+len(p.octets)), v, byte(kindPart))}
	w.view(view)
	w.flag(last)
	w.u32(uint32(p.items))
	return append(w.buf, p.octets...)
}

func encodeDone(v uint8, view ring.ViewID) []byte {
	w := writer{buf: []byte{v, byte(kindDone)}}
	w.view(view)
	return w.buf
}

// add adds an item to a part.
func (p *part) add(item *handlespace.Item) {
	before := len(p.octets)
	if p.octets = appendItem(p.octets, item); len(p.octets) > before {
		p.items++
	}
}

// decode returns the items of a part.
func (p *part) decode(d *param.Decoding) ([]handlespace.Item, error) {
	var items []handlespace.Item
	r := reader{rest: p.octets, decoding: d}
	for len(r.rest) > 0 && !r.bad {
		items = append(items, r.item())
	}
	if r.bad || len(items) != p.items {
		return nil, errPayload
	}
	return items, nil
}

// appendItem appends an item to a part. What can't be encoded can't have been
// ordered, and so is not stored.
func appendItem(dst []byte, item *handlespace.Item) []byte {
	w := writer{buf: dst}
	switch {
	case item.Record != nil:
		r := item.Record.Entry()
		w.u8(itemRecord)
		w.text(string(r.Handle))
		w.element(&r.Element)
		w.generation(r.Generation)
		w.u64(r.HomeIncarnation)
		w.flag(r.Confirmed)
		w.flag(r.Suspect)
		w.u8(uint8(r.Cause))
		w.u32(uint32(r.Reports))
		w.time(r.Registered)
		w.time(r.Refreshed)
		w.time(r.Held)
		w.count(len(item.Reporters))
		for _, reporter := range item.Reporters {
			w.text(reporter)
		}
	case item.Tombstone != nil:
		t := item.Tombstone
		w.u8(itemTombstone)
		w.meant(t.Key.Handle, t.Key.ID, t.Generation)
		w.time(t.Until)
	default:
		p := item.Pool
		w.u8(itemPool)
		w.text(string(p.Handle))
		w.time(p.Created)
		w.text(p.Owner)
		w.element(&param.PoolElement{ID: p.Founder, User: p.User, Policy: param.Policy{Type: p.Policy}})
	}
	if w.err != nil {
		return dst
	}
	return w.buf
}

// lossless reports whether a command decodes to the same again. That is said of those
// only that come in great numbers: times have one reading then, and addresses of
// elements no zone.
func lossless(cmd handlespace.Command) bool {
	switch c := cmd.(type) {
	case handlespace.Register:
		return c.Now == c.Now.Round(0) && !zoned(c.Element.User.Addrs) && !zoned(c.Element.ASAP.Addrs)
	case handlespace.Deregister:
		return c.Now == c.Now.Round(0)
	}
	return false
}

func zoned(addrs []netip.Addr) bool {
	return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Zone() != "" || a.Is4In6() })
}

// decode returns the message of a payload, of which it keeps nothing but a part of an
// exchange. highest is the last version that is known.
func decode(highest uint8, payload []byte) (message, error) {
	return decodeWith(new(param.Decoding), highest, payload)
}

// decodeWith is decode by way of a decoding that is used for one payload after the other,
// with texts from among its handles where it can.
func decodeWith(d *param.Decoding, highest uint8, payload []byte) (message, error) {
	if len(payload) < 2 || payload[0] == 0 || payload[0] > highest {
		return message{}, errVersion
	}
	r := reader{rest: payload[2:], decoding: d}
	m := message{version: payload[0]}
	switch kind(payload[1]) {
	case kindHello:
		m.view = r.view()
		m.highest = r.u8()
		r.bad = r.bad || m.highest == 0
		m.marks.Stamp = r.u64()
		m.marks.HeldBack = r.time()
		m.digest = new(handlespace.Digest)
		for i := range handlespace.Ranges {
			m.digest.Entries[i] = r.u64()
			m.digest.Tombstones[i] = r.u64()
		}
		r.rest = nil // what later versions add
	case kindPart:
		m.view = r.view()
		m.last = r.flag()
		m.part = part{items: int(r.u32()), octets: r.rest}
		r.bad = r.bad || uint(m.part.items) > uint(len(r.rest)) // an int may have 32 bits
		r.rest = nil
	case kindDone:
		m.view, m.done = r.view(), true
	default:
		if m.command = r.command(kind(payload[1]), &m.view); m.command == nil {
			return message{}, errVersion
		}
	}
	if r.bad || len(r.rest) > 0 {
		return message{}, errPayload
	}
	return m, nil
}

func (r *reader) command(k kind, only *ring.ViewID) handlespace.Command {
	switch k {
	case kindRegister:
		c := handlespace.Register{Handle: r.handle(), Element: r.element()}
		raiser := r.home()
		c.Raiser, c.Incarnation = raiser.ID, raiser.Incarnation
		c.Conflict, c.Owner, c.Now = r.generation(), r.text(), r.time()
		return c
	case kindDeregister:
		c := handlespace.Deregister{Handle: r.handle(), ID: r.id(), From: r.addrs()}
		raiser := r.home()
		c.Raiser, c.Incarnation, c.Now = raiser.ID, raiser.Incarnation, r.time()
		return c
	case kindRemove:
		c := handlespace.Remove{Handle: r.handle(), ID: r.id(), Generation: r.generation()}
		c.Cause, c.Now = handlespace.RemovalCause(r.u8()), r.time()
		return c
	case kindReport:
		c := handlespace.Report{Handle: r.handle(), ID: r.id(), Generation: r.generation()}
		c.Reporter, c.Now = r.text(), r.time()
		return c
	case kindAlive:
		return handlespace.Alive{Handle: r.handle(), ID: r.id(), Generation: r.generation(), Now: r.time()}
	case kindImport:
		return handlespace.Import{Handle: r.handle(), Element: r.element(), Now: r.time()}
	case kindForget:
		c := handlespace.Forget{Handle: r.handle(), ID: r.id(), Generation: r.generation()}
		c.Home, c.Raiser, c.Now = param.RegistrarID(r.u32()), param.RegistrarID(r.u32()), r.time()
		return c
	case kindTakeover:
		*only = r.view()
		c := handlespace.Takeover{From: r.home()}
		for range r.count(12) {
			c.To = append(c.To, r.home())
		}
		c.Limit, c.Now = int(r.u32()&math.MaxInt32), r.time()
		return c
	case kindConfirm:
		c := handlespace.Confirm{Handle: r.handle(), ID: r.id(), Generation: r.generation()}
		c.Home, c.Now = r.home(), r.time()
		return c
	case kindHoldBack:
		return handlespace.HoldBack{Now: r.time()}
	case kindSweep:
		return handlespace.Sweep{Now: r.time()}
	}
	return nil
}

func (r *reader) item() handlespace.Item {
	switch r.u8() {
	case itemRecord:
		e := handlespace.Entry{Handle: r.handle(), Element: r.element(), Generation: r.generation()}
		e.HomeIncarnation, e.Confirmed, e.Suspect = r.u64(), r.flag(), r.flag()
		e.Cause, e.Reports = handlespace.RemovalCause(r.u8()), int(r.u32()&math.MaxInt32)
		e.Registered, e.Refreshed, e.Held = r.time(), r.time(), r.time()
		var reporters []string
		for range r.count(2) {
			reporters = append(reporters, r.text())
		}
		if r.bad || e.Handle == "" || e.Element.ID == 0 {
			r.bad = true
			return handlespace.Item{}
		}
		item, err := handlespace.NewItem(&e, reporters)
		r.bad = err != nil
		return item
	case itemTombstone:
		t := handlespace.Tombstone{Key: handlespace.Key{Handle: r.handle(), ID: r.id()}}
		t.Generation, t.Until = r.generation(), r.time()
		return handlespace.Item{Tombstone: &t}
	case itemPool:
		p := handlespace.PoolState{Handle: r.handle(), Created: r.time(), Owner: r.text()}
		e := r.element()
		p.Founder, p.User, p.Policy = e.ID, e.User, e.Policy.Type
		return handlespace.Item{Pool: &p}
	}
	r.bad = true
	return handlespace.Item{}
}
