// Package transport defines how RSerPool messages travel: whole messages over
// associations and connections (Conn, Listener, Network), and registrar
// announcements over multicast (Announcer). The packages below it implement
// this for kernel SCTP, TCP, UDP multicast and, for tests, memory.
//
// It knows messages only as octets with a length field in octets 2 and 3 (RFC
// 5354, section 4); what they mean belongs to the packages asap and enrp.
package transport

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Payload protocol identifiers, in host byte order (RFC 5352, section 8.3; RFC
// 5353, section 5.4).
const (
	PPIDASAP uint32 = 11
	PPIDENRP uint32 = 12
)

// Names of the networks.
const (
	SCTP = "sctp"
	TCP  = "tcp"
	Mem  = "mem"
)

// Message is one message as it came or as it shall go.
type Message struct {
	// Data is the message. One that was received lies in the buffer given
	// to Receive and is valid until the next call; over TCP padding at the
	// end of the message is included. Over TCP the length field of one that
	// is sent must be right; missing padding is added.
	Data []byte
	// PPID is the SCTP payload protocol identifier in host byte order. On
	// networks without one, Receive reports 0 and Send ignores it.
	PPID uint32
	// Stream is the SCTP stream; 0 elsewhere.
	Stream uint16
}

// Errors of all networks. They are wrapped with more detail; test with
// errors.Is.
var (
	// ErrTooLong: a received message is longer than the buffer or the
	// network's limit. The connection can't be used any more.
	ErrTooLong = errors.New("message too long")
	// ErrMalformed: the length field of a message on a byte stream makes no
	// sense. The connection can't be used any more.
	ErrMalformed = errors.New("malformed message framing")
	// ErrUnsupported: this machine has no such network.
	ErrUnsupported = errors.New("network not supported on this machine")
)

// EventType tells the kinds of Event apart.
type EventType int

// Kinds of events.
const (
	PathUp   EventType = iota + 1 // a path to one of the peer's addresses works (again)
	PathDown                      // a path to one of the peer's addresses failed; the association goes on
	Up                            // the association was restarted by the peer; some networks also report its beginning
	Down                          // the association is lost or was shut down; Receive and Send will fail
)

// Event is a notification about a connection.
type Event struct {
	Type EventType
	Addr netip.AddrPort // the peer's address concerned, for PathUp and PathDown
	Err  error          // why, for Down, where known
}

// Conn is one association or connection: reliable, ordered, whole messages.
//
// Send, Close, Abort and the getters may be called concurrently with each other
// and with Receive; Receive itself is for one goroutine at a time.
type Conn interface {
	// Receive waits for the next message and puts it into buf. It returns
	// io.EOF when the peer closed in an orderly way, an error that wraps
	// net.ErrClosed after Close or Abort, and ctx's cause when ctx ends. A
	// call that ctx ended has lost nothing: Receive can be called again.
	// Passing the same ctx call after call costs nothing extra.
	Receive(ctx context.Context, buf []byte) (Message, error)
	// Buffered reports whether the next Receive finds a whole message
	// already there, so that a reader can collect its answers before it
	// sends them. Networks that can't tell without a system call return
	// false.
	Buffered() bool
	// Send sends the messages in this order, as few system calls as the
	// network allows, and returns when the network took them all. When ctx
	// ends in the middle of a message on a byte stream the connection can't
	// be used any more and is closed.
	Send(ctx context.Context, msgs ...Message) error
	// Network returns SCTP, TCP or Mem.
	Network() string
	// LocalAddrs and RemoteAddrs return the addresses at each end, primary
	// first, IPv4-mapped IPv6 addresses as IPv4; several with multi-homing.
	LocalAddrs() []netip.AddrPort
	RemoteAddrs() []netip.AddrPort
	// Events returns the channel of notifications. It is never closed, has a
	// small buffer, and when nobody reads it the oldest event is dropped.
	Events() <-chan Event
	// Close ends the connection in an orderly way (SCTP: SHUTDOWN, what was
	// sent is still delivered) and wakes Receive. It doesn't wait for the
	// peer. Closing twice is harmless.
	Close() error
	// Abort ends the connection at once (SCTP: ABORT, TCP: RST).
	Abort() error
}

// TrySender is a Conn that can send without waiting; not all networks have that.
type TrySender interface {
	Conn
	// TrySend is Send without waiting for the network, nor for somebody who is
	// sending: what it does not take at once is kept, done is false then, and the
	// next call of Send, with or without messages, sends that first.
	TrySend(ctx context.Context, msgs ...Message) (done bool, err error)
}

// Flusher is a Conn whose messages can overtake one another, on streams, and that can wait
// until none does.
type Flusher interface {
	Conn
	// Flush waits until the peer's end has everything that was sent. What is sent
	// then, on whatever stream, comes after it.
	Flush(ctx context.Context) error
}

// Listener accepts connections.
type Listener interface {
	// Accept waits for the next connection; errors as for Conn.Receive.
	Accept(ctx context.Context) (Conn, error)
	Network() string
	// Addrs returns the addresses listened on, with the real port.
	Addrs() []netip.AddrPort
	// Close stops listening and wakes Accept. Connections stay.
	Close() error
}

// Options adjust a network's sockets. The zero value means defaults.
type Options struct {
	// MaxMessage is the longest message to receive, in octets. Default and
	// maximum 65536 (a message of 65535 octets and its padding).
	MaxMessage int
	// Streams is the number of SCTP streams asked for in each direction.
	// Default 16: each costs kernel memory.
	Streams uint16
	// DefaultPPID is the PPID used by Send for messages with PPID 0.
	DefaultPPID uint32
	// ReusePort lets a dialled association leave from the port that a
	// listener of this process uses, so that peers find one address for
	// both directions. Both sockets must have it. SCTP has one association
	// between two ports: while there is one, another leaves from a free port.
	ReusePort bool
	// Heartbeat is the SCTP path heartbeat interval. 0 = the kernel's.
	Heartbeat time.Duration
	// PathMaxRetrans and AssocMaxRetrans limit retransmissions before an SCTP
	// path or association is given up. 0 = the kernel's.
	PathMaxRetrans, AssocMaxRetrans uint16
}

// Network makes connections of one kind.
type Network interface {
	// Name returns SCTP, TCP or Mem.
	Name() string
	// Available returns nil, or ErrUnsupported wrapped with the reason.
	Available() error
	// Dial connects to the peer that has the remote addresses. On SCTP they
	// are the addresses of one multi-homed endpoint, used together; elsewhere
	// they are alternatives, tried one after the other within ctx. local, if
	// not empty, is bound to; its port may be 0.
	Dial(ctx context.Context, local, remote []netip.AddrPort, opt Options) (Conn, error)
	// Listen listens on the local addresses, all with the same port; port 0
	// takes a free one. SCTP: one endpoint with all the addresses. An
	// unspecified address (:: or 0.0.0.0) stands for all addresses; :: takes
	// IPv4 as well.
	Listen(ctx context.Context, local []netip.AddrPort, opt Options) (Listener, error)
}

// Announcer sends and receives registrar announcements (RFC 5352, section 3.6).
type Announcer interface {
	// Announce sends one datagram to the group.
	Announce(ctx context.Context, data []byte) error
	// ReceiveAnnouncement waits for the next datagram and puts it into buf;
	// it returns its length and source. Errors as for Conn.Receive; a
	// datagram that is longer than buf is dropped.
	ReceiveAnnouncement(ctx context.Context, buf []byte) (int, netip.AddrPort, error)
	Close() error
}
