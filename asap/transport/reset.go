package transport

import (
	"crypto/tls"
	"errors"
	"net"
)

// ErrInterruptedTLS: a write was interrupted, for example by a deadline, and TLS can't go
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
