package ringnet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/enrp/ring"
)

// version numbers the protocol between members: hello, frames, messages.
type version uint16

// versionRange is what a member can speak. Members speak the highest version that
// both can; one that comes with version n+1 shall speak n as well.
type versionRange struct{ min, max version }

// spoken is what this program speaks. Version 2 brought clock frames.
var spoken = versionRange{1, 2}

// common returns the highest version in both ranges.
func (r versionRange) common(s versionRange) (version, bool) {
	v := min(r.max, s.max)
	return v, v >= max(r.min, s.min)
}

func (r versionRange) String() string {
	if r.min == r.max {
		return fmt.Sprintf("version %d", r.min)
	}
	return fmt.Sprintf("versions %d to %d", r.min, r.max)
}

// hello says who is there:
//
//	magic            4  "RING"
//	lowest version   2
//	highest version  2
//	identifier       4
//	incarnation      8
//	cluster name     1 + up to 64
//	contact          2 + up to 512
//
// Later versions may add to its end.
type hello struct {
	versions versionRange
	cluster  string
	node     ring.Node
}

const (
	helloMagic = "RING"
	memberLen  = 4 + 8
	helloFixed = 4 + 2 + 2 + memberLen
	// maxHello is the longest frame before a connection is taken, with room for
	// what later versions add.
	maxHello = 2048
)

var errHello = errors.New("malformed hello")

func (h hello) append(dst []byte) []byte {
	dst = append(dst, helloMagic...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(h.versions.min))
	dst = binary.BigEndian.AppendUint16(dst, uint16(h.versions.max))
	dst = appendMember(dst, h.node.Member)
	dst = append(dst, byte(len(h.cluster)))
	dst = append(dst, h.cluster...)
	return appendContact(dst, h.node.Contact)
}

func appendMember(dst []byte, m ring.Member) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(m.ID))
	return binary.BigEndian.AppendUint64(dst, uint64(m.Incarnation))
}

// parseMember reads the first memberLen octets.
func parseMember(b []byte) ring.Member {
	return ring.Member{ID: ring.NodeID(binary.BigEndian.Uint32(b)), Incarnation: ring.Incarnation(binary.BigEndian.Uint64(b[4:]))}
}

func appendContact(dst []byte, contact string) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(contact)))
	return append(dst, contact...)
}

// parseContactText reads a contact and returns what follows it.
func parseContactText(b []byte) (contact string, rest []byte, ok bool) {
	if len(b) < 2 {
		return "", nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; n > ring.MaxContact || len(b) < n {
		return "", nil, false
	}
	return string(b[:n]), b[n:], true
}

func parseHello(b []byte) (hello, error) {
	if len(b) < helloFixed+1 || string(b[:4]) != helloMagic {
		return hello{}, fmt.Errorf("%w: %d octets without the beginning of one", errHello, len(b))
	}
	h := hello{versions: versionRange{version(binary.BigEndian.Uint16(b[4:])), version(binary.BigEndian.Uint16(b[6:]))}}
	h.node.Member = parseMember(b[8:])
	n, b := int(b[helloFixed]), b[helloFixed+1:]
	if n == 0 || n > maxCluster || len(b) < n {
		return hello{}, fmt.Errorf("%w: cluster name of %d octets", errHello, n)
	}
	h.cluster = string(b[:n])
	contact, _, ok := parseContactText(b[n:])
	h.node.Contact = contact
	switch {
	case !ok:
		return hello{}, fmt.Errorf("%w: contact", errHello)
	case h.versions.min == 0 || h.versions.min > h.versions.max:
		return hello{}, fmt.Errorf("%w: %s", errHello, h.versions)
	case h.node.ID == 0:
		return hello{}, fmt.Errorf("%w: no identifier", errHello)
	}
	return h, nil
}

// Reasons for which connections are refused, as Status.Refused counts them.
const (
	refusedGarbage = "garbage"  // no hello, or frames that make no sense
	refusedSilent  = "silent"   // no hello in time
	refusedFlood   = "flood"    // too many connections without a hello, or of one member
	refusedCluster = "cluster"  // another cluster
	refusedVersion = "version"  // no version in common
	refusedName    = "identity" // a certificate that is another member's
	refusedMany    = "too-many" // more members than there can be
	refusedByPeer  = "by-peer"  // the other side refused, and said why
	refusedMessage = "message"  // a message that can't be decoded
	refusedMemory  = "memory"   // too many long messages from outside the view
	refusedSlow    = "slow"     // a long message from outside the view that takes too long
)

// refusal is an error that is told to the other side, too, or came from there.
type refusal struct {
	reason, text string
}

func (r *refusal) Error() string {
	if r.reason == refusedByPeer {
		return "refused by the other side: " + r.text
	}
	return r.text
}

// compatible returns the version to speak with the one who sent h over a connection.
func (g *Group) compatible(h hello, conn transport.Conn) (version, error) {
	if h.cluster != g.cfg.Cluster {
		return 0, &refusal{refusedCluster, fmt.Sprintf("different clusters: %s is in %q, %s in %q", h.node.Member, h.cluster, g.self.Member, g.cfg.Cluster)}
	}
	v, ok := g.versions.common(h.versions)
	if !ok {
		return 0, &refusal{refusedVersion, fmt.Sprintf("no protocol version in common: %s speaks %s, %s %s", h.node.Member, h.versions, g.self.Member, g.versions)}
	}
	if err := transport.CheckIdentity(conn, param.RegistrarID(h.node.ID)); err != nil {
		return 0, &refusal{refusedName, err.Error()}
	}
	return v, nil
}

// tells reports whether the other side is told why it is refused.
func (r *refusal) tells() bool {
	return r.reason == refusedCluster || r.reason == refusedVersion || r.reason == refusedName
}

// greet exchanges hellos. The dialler speaks first; who accepts says nothing to
// someone who is no member, and is told by Ready that the connection is wanted.
func (g *Group) greet(ctx context.Context, conn transport.Conn, dialled bool) (hello, version, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, g.cfg.HelloTimeout, &refusal{refusedSilent, fmt.Sprintf("no hello within %s", g.cfg.HelloTimeout)})
	defer cancel()
	mine := hello{versions: g.versions, cluster: g.cfg.Cluster, node: g.self}.append(nil)
	say := func(kind byte, body []byte) error {
		return conn.Send(ctx, transport.Message{Data: appendFrame(nil, kind, body), PPID: ppid})
	}
	if dialled {
		if err := say(frameHello, mine); err != nil {
			return hello{}, 0, err
		}
	}
	frames := frameReader{conn: conn, buf: make([]byte, maxHello)}
	theirs, v, err := g.expectHello(ctx, &frames)
	if refused := (*refusal)(nil); errors.As(err, &refused) && refused.tells() {
		// Best effort: the connection ends anyway.
		_ = say(frameRefusal, []byte(refused.text))
	}
	if err != nil || dialled {
		return theirs, v, err
	}
	if err := say(frameHello, mine); err != nil {
		return theirs, v, err
	}
	if theirs.node.Member == g.self.Member {
		return theirs, v, nil
	}
	kind, body, err := frames.frame(ctx)
	switch {
	case err != nil:
	case kind == frameRefusal:
		err = &refusal{refusedByPeer, printable(body)}
	case kind != frameReady:
		err = fmt.Errorf("%w of type 0x%02x", errFrame, kind)
	}
	return theirs, v, err
}

func (g *Group) expectHello(ctx context.Context, frames *frameReader) (hello, version, error) {
	kind, body, err := frames.frame(ctx)
	switch {
	case errors.Is(err, io.EOF):
		return hello{}, 0, fmt.Errorf("closed without a word, as when only the other side has certificates: %w", err)
	case err != nil:
		return hello{}, 0, err
	case kind == frameRefusal:
		return hello{}, 0, &refusal{refusedByPeer, printable(body)}
	case kind != frameHello:
		return hello{}, 0, fmt.Errorf("%w of type 0x%02x", errFrame, kind)
	}
	h, err := parseHello(body)
	if err != nil {
		return hello{}, 0, err
	}
	v, err := g.compatible(h, frames.conn)
	return h, v, err
}

// reasonOf tells why a connection was refused, "" when it just ended.
func reasonOf(err error) string {
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		return refused.reason
	case errors.Is(err, errFrame), errors.Is(err, errHello), errors.Is(err, transport.ErrMalformed), errors.Is(err, transport.ErrTooLong):
		return refusedGarbage
	}
	return ""
}

// refusals counts what was refused, by reason, and logs some of it.
type refusals struct {
	log logrus.FieldLogger

	mu     sync.Mutex
	counts map[string]uint64
	logged map[string]logged
}

type logged struct {
	at    time.Time
	count uint64 // then
}

// logPause is how long a reason is not logged again.
const logPause = 10 * time.Second

// add counts and logs what was refused, if it was.
func (r *refusals) add(err error, from string) {
	reason := reasonOf(err)
	if reason == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts, r.logged = make(map[string]uint64), make(map[string]logged)
	}
	r.counts[reason]++
	now, last, count := time.Now(), r.logged[reason], r.counts[reason]
	if !last.at.IsZero() && now.Sub(last.at) < logPause {
		return
	}
	log := r.log.WithError(err).WithFields(logrus.Fields{"from": from, "reason": reason})
	if more := count - last.count - 1; more > 0 {
		log = log.WithField("unlogged", more)
	}
	r.logged[reason] = logged{now, count}
	log.Warn("ring: connection refused")
}

func (r *refusals) snapshot() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := make(map[string]uint64, len(r.counts))
	for reason, n := range r.counts {
		counts[reason] = n
	}
	return counts
}
