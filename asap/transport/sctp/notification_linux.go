//go:build !386

package sctp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	kernel "github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"

	"rserpool/asap/transport"
)

// States of a peer's address in SCTP_PEER_ADDR_CHANGE (RFC 6458, section 6.1.2).
const (
	addrAvailable = iota
	addrUnreachable
	addrRemoved
	addrAdded
	addrMadePrimary
	addrConfirmed
)

// errLost is why an association ended without a shutdown.
var errLost = errors.New("association lost")

// notification is what one notification means for a connection.
type notification struct {
	event   transport.Event // none if its Type is 0
	end     error           // what Receive returns from now on, if not nil
	restart bool            // the peer has started anew
	discard bool            // the message that has come in part is never completed
}

// parseNotification reads one notification (RFC 6458, section 6.1). Kinds that
// were not asked for and unreadable ones give the zero value.
func parseNotification(b []byte) notification {
	if len(b) < 8 {
		return notification{}
	}
	switch kernel.SCTPNotificationType(binary.NativeEndian.Uint16(b)) {
	case kernel.SCTP_ASSOC_CHANGE:
		return parseAssocChange(b[8:])
	case kernel.SCTP_PEER_ADDR_CHANGE:
		return notification{event: parseAddrChange(b[8:])}
	case kernel.SCTP_SHUTDOWN_EVENT:
		return notification{event: transport.Event{Type: transport.Down}, end: io.EOF}
	case kernel.SCTP_PARTIAL_DELIVERY_EVENT:
		return notification{discard: true}
	}
	return notification{}
}

// parseAssocChange reads state 2, error 2 and what follows.
func parseAssocChange(b []byte) notification {
	if len(b) < 4 {
		return notification{}
	}
	switch kernel.SCTPState(binary.NativeEndian.Uint16(b)) {
	case kernel.SCTP_COMM_UP:
		return notification{event: transport.Event{Type: transport.Up}}
	case kernel.SCTP_RESTART:
		return notification{event: transport.Event{Type: transport.Up}, restart: true, discard: true}
	case kernel.SCTP_SHUTDOWN_COMP:
		return notification{event: transport.Event{Type: transport.Down}, end: io.EOF}
	case kernel.SCTP_COMM_LOST, kernel.SCTP_CANT_STR_ASSOC:
		err := fmt.Errorf("%w: %w", errLost, unix.ECONNRESET)
		if cause := binary.BigEndian.Uint16(b[2:]); cause != 0 {
			err = fmt.Errorf("%w (SCTP error cause %d): %w", errLost, cause, unix.ECONNRESET)
		}
		return notification{event: transport.Event{Type: transport.Down, Err: err}, end: err}
	}
	return notification{}
}

// parseAddrChange reads address 128, state 4 and what follows.
func parseAddrChange(b []byte) transport.Event {
	if len(b) < 132 {
		return transport.Event{}
	}
	e := transport.Event{Addr: parseSockaddr(b)}
	switch binary.NativeEndian.Uint32(b[128:]) {
	case addrAvailable, addrAdded, addrConfirmed:
		e.Type = transport.PathUp
	case addrUnreachable, addrRemoved:
		e.Type = transport.PathDown
	default:
		return transport.Event{}
	}
	return e
}
