package ring

import (
	"encoding/binary"
	"math"
)

// Copy is what a token carries. A Copy and all that it refers to are not changed
// once made: tokens on their way, copies that members keep and promises share them.
type Copy struct {
	View ViewID
	Hop  uint64
	Seq  uint64 // of the last entry that was ever in the token of this view
	Rush uint64 // nobody keeps the token up to this hop
	// Yield: nobody adds payloads up to this hop, where somebody waits whose
	// proposal needs much room.
	Yield   uint64
	Install *Install // in the first round of a view
	// Runs are the entries, in order and without gaps up to Seq. Those of other
	// views, the head, come first.
	Runs []Run
}

// Install is how the members of a new view learn of it.
type Install struct {
	View     View
	Cause    Cause
	Exchange bool
	Origins  []Origin
}

// Kind tells entries apart.
type Kind uint8

// Kinds of entries.
const (
	KindPayload Kind = iota
	KindEnd          // END of the exchange
	KindLock         // asks for a lock; its name
	KindUnlock       // gives it, or the place in its queue, back; its name
	KindClaim        // a lock held or asked for in the view before; fence and name
	KindClaimed      // the sender has no more claims
	KindOpen         // locks may be granted in this view; primary mode
	kinds
)

// Run is a row of entries that one member put in at one visit.
type Run struct {
	Seq       uint64 // of the first, in the token's view
	Count     uint64
	Origin    ViewID // where they were ordered first
	OriginSeq uint64 // and the first one's number there
	From      Member
	Proposal  uint64 // number of the first, if payloads
	Kind      Kind
	// Omitted: the receiver put these in itself, so Data stayed behind.
	Omitted bool
	// Data are the payloads, each with its length before it (uvarint).
	Data []byte
}

// overhead is what an entry counts for beyond its payload, in octets.
const overhead = 16

// runOctets is what a run of one entry takes in a message at most beyond its payload.
const runOctets = 96

// cost is what a payload counts for in the bounds of visit, token and queue.
func cost(payload []byte) int { return len(payload) + overhead }

// octets is what the run counts for.
func (r *Run) octets() int { return len(r.Data) + int(r.Count)*overhead }

// last is the sequence number of the last entry.
func (r *Run) last() uint64 { return r.Seq + r.Count - 1 }

// originLast is the number of the last entry where it was ordered first.
func (r *Run) originLast() uint64 { return r.OriginSeq + r.Count - 1 }

// cut returns the first payload of data and what follows it. ok is false if data is
// malformed.
func cut(data []byte) (payload, rest []byte, ok bool) {
	n, w := binary.Uvarint(data)
	if w <= 0 || n > MaxPayload || n > uint64(len(data)-w) {
		return nil, nil, false
	}
	end := w + int(n)
	return data[w:end:end], data[end:], true
}

// wellFormed reports whether Data holds Count payloads and nothing else.
func (r *Run) wellFormed() bool {
	if r.Omitted {
		return len(r.Data) == 0
	}
	data, ok := r.Data, true
	for range r.Count {
		if _, data, ok = cut(data); !ok {
			return false
		}
	}
	return len(data) == 0
}

// after returns the part of the run beyond a number of its origin, without entries
// if there is none.
func (r Run) after(originSeq uint64) Run {
	for r.Count > 0 && r.OriginSeq <= originSeq {
		_, rest, ok := cut(r.Data)
		if !ok {
			return Run{}
		}
		r.Data = rest
		r.Seq++
		r.OriginSeq++
		r.Proposal++
		r.Count--
	}
	return r
}

// octets is what the entries count for. It goes no further than math.MaxInt32.
func (c *Copy) octets() int {
	sum := 0
	for i := range c.Runs {
		if sum += c.Runs[i].octets(); sum < 0 || sum > math.MaxInt32 {
			return math.MaxInt32
		}
	}
	return sum
}

// entries counts the entries.
func (c *Copy) entries() int {
	sum := 0
	for i := range c.Runs {
		sum += int(c.Runs[i].Count)
	}
	return sum
}

// headEnd is the sequence number of the last entry of the head; only meaningful
// while the head is in the token.
func (c *Copy) headEnd() uint64 {
	var end uint64
	for i := range c.Runs {
		if c.Runs[i].Origin == c.View {
			return c.Runs[i].Seq - 1
		}
		end = c.Runs[i].last()
	}
	return end
}

// without returns the runs beyond a sequence number.
func without(runs []Run, seq uint64) []Run {
	for len(runs) > 0 && runs[0].last() <= seq {
		runs = runs[1:]
	}
	if len(runs) > 0 && runs[0].Seq <= seq {
		first := runs[0].after(runs[0].OriginSeq + seq - runs[0].Seq)
		runs = append([]Run{first}, runs[1:]...)
	}
	return runs
}
