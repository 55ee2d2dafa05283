package transport

import (
	"crypto/tls"
	"errors"
	"net"
	"time"
)

// shutWait bounds the goodbye of TLS towards a peer that does not read.
const shutWait = 20 * time.Millisecond

// ErrInterruptedTLS says that a write was interrupted, for example by a deadline, and TLS can't go
// on after that. The stream can't be written to any more.
var ErrInterruptedTLS = errors.New("TLS can't go on after an interrupted write")

// Reset closes a stream without a word, and without waiting for the peer; over TCP with a
// reset.
func Reset(stream net.Conn) error {
	socket := stream
	secured, isSecured := stream.(*tls.Conn)
	if isSecured {
		socket = secured.NetConn()
	}
	var err error
	if tcp, ok := socket.(interface{ SetLinger(int) error }); ok {
		err = tcp.SetLinger(0)
	}
	err = errors.Join(err, socket.Close())
	if isSecured {
		_ = secured.Close() // can't say anything any more
	}
	return err
}

// Shut closes a stream in an orderly way. TLS says its own goodbye, and would wait 5 s for a
// peer that does not read.
func Shut(stream net.Conn) error {
	if secured, ok := stream.(*tls.Conn); ok {
		cut := time.AfterFunc(shutWait, func() { _ = secured.NetConn().Close() })
		defer cut.Stop()
	}
	return stream.Close()
}
