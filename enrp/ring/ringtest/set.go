package ringtest

import (
	"encoding/binary"
	"slices"
	"time"

	"rserpool/enrp/ring"
)

// set is the simulator's own application: a grow-only set of keys. Each ordered
// payload adds one. Members of a view with an exchange order what they know, one
// of those who know the same for all of them.
type set struct {
	self   ring.Member
	view   ring.View
	state  map[uint64]struct{}
	queued []uint64 // delivered during the exchange, applied at END
	gained []uint64 // from the others' sets, applied at END
	// inExchange, and who has not sent all of his.
	inExchange bool
	missing    map[ring.Member]bool
	out        [][]byte
	end        bool
}

// Payloads of the set begin with their kind. A key follows, or, of a chunk, the
// view's counter and coordinator, whether it is the last, and keys.
const (
	payloadKey   = 1
	payloadChunk = 2
)

const chunkKeys = 64

func newSet(self ring.Node, _ time.Time) App {
	return &set{self: self.Member, state: map[uint64]struct{}{}}
}

// keyPayload is a payload that adds a key and has so many octets, if they suffice.
func keyPayload(key uint64, size int) []byte {
	p := make([]byte, max(size, 9))
	p[0] = payloadKey
	binary.BigEndian.PutUint64(p[1:], key)
	return p
}

// payloadKeyOf returns the key of a payload, false if it is a chunk.
func payloadKeyOf(p []byte) (uint64, bool) {
	if len(p) < 9 || p[0] != payloadKey {
		return 0, false
	}
	return binary.BigEndian.Uint64(p[1:]), true
}

func (s *set) Handle(e ring.Event, _ time.Time) {
	switch e := e.(type) {
	case ring.Installed:
		s.install(e)
	case ring.Delivered:
		for _, entry := range e.Entries {
			s.deliver(entry)
		}
	case ring.Ended:
		for _, k := range s.gained {
			s.state[k] = struct{}{}
		}
		s.applyQueued()
		s.inExchange, s.gained = false, nil
	}
}

func (s *set) applyQueued() {
	for _, k := range s.queued {
		s.state[k] = struct{}{}
	}
	s.queued = s.queued[:0]
}

func (s *set) install(e ring.Installed) {
	// What an exchange that was interrupted delivered is known here, and is part
	// of what goes into the next one.
	s.applyQueued()
	s.view, s.inExchange, s.gained, s.out, s.end = e.View, e.Exchange, nil, nil, false
	if !e.Exchange {
		return
	}
	s.missing = map[ring.Member]bool{}
	var mine ring.Origin
	for _, o := range e.Origins {
		s.missing[o.Member] = true
		if o.Member == s.self {
			mine = o
		}
	}
	speaks := true
	for _, o := range e.Origins {
		if o.Installed == mine.Installed && o.With == mine.With && o.Compare(s.self) < 0 {
			speaks = false
		}
	}
	var keys []uint64
	if speaks {
		for k := range s.state {
			keys = append(keys, k)
		}
		slices.Sort(keys)
	}
	for {
		n := min(len(keys), chunkKeys)
		s.out = append(s.out, s.chunk(keys[:n], n == len(keys)))
		keys = keys[n:]
		if len(keys) == 0 {
			break
		}
	}
}

func (s *set) chunk(keys []uint64, last bool) []byte {
	p := []byte{payloadChunk, 0}
	if last {
		p[1] = 1
	}
	p = appendView(p, s.view.ID)
	for _, k := range keys {
		p = binary.BigEndian.AppendUint64(p, k)
	}
	return p
}

func appendView(p []byte, v ring.ViewID) []byte {
	p = binary.BigEndian.AppendUint64(p, v.Counter)
	p = binary.BigEndian.AppendUint32(p, uint32(v.Coordinator.ID))
	return binary.BigEndian.AppendUint64(p, uint64(v.Coordinator.Incarnation))
}

const chunkHead = 2 + 8 + 4 + 8

func (s *set) deliver(entry ring.Entry) {
	p := entry.Payload
	if key, ok := payloadKeyOf(p); ok {
		if s.inExchange {
			s.queued = append(s.queued, key)
		} else {
			s.state[key] = struct{}{}
		}
		return
	}
	// A chunk for another view comes too late: that exchange begins anew.
	if !s.inExchange || len(p) < chunkHead || string(appendView(nil, s.view.ID)) != string(p[2:chunkHead]) {
		return
	}
	for keys := p[chunkHead:]; len(keys) >= 8; keys = keys[8:] {
		s.gained = append(s.gained, binary.BigEndian.Uint64(keys))
	}
	if p[1] == 1 {
		delete(s.missing, entry.From)
		s.end = len(s.missing) == 0 && s.view.ID.Coordinator == s.self
	}
}

func (s *set) Outbox(time.Time) ([][]byte, bool) {
	out, end := s.out, s.end
	s.out, s.end = nil, false
	return out, end
}

func (s *set) Next() time.Time { return time.Time{} }
