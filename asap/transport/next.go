package transport

import (
	"bytes"
	"context"
	"sync"
)

// Nexter is a Conn that needs no buffer to wait for messages; not all networks have that.
type Nexter interface {
	Conn
	// Next is Receive into memory that is taken when the message comes and belongs to
	// the caller. Who waits in it holds none. Calls of Receive and Next must not run at
	// the same time.
	Next(ctx context.Context) (Message, error)
}

// Receiver returns how to receive conn's messages in memory of their own, as Next does;
// where conn has no such method, by Receive into a buffer that is held while waiting.
func Receiver(conn Conn) func(ctx context.Context) (Message, error) {
	if c, ok := conn.(Nexter); ok {
		return c.Next
	}
	return func(ctx context.Context) (Message, error) {
		buf := longBuffers.Get().(*[MaxMessage]byte)
		defer longBuffers.Put(buf)
		m, err := conn.Receive(ctx, buf[:])
		m.Data = bytes.Clone(m.Data)
		return m, err
	}
}

// longBuffers have room for any message.
var longBuffers = sync.Pool{New: func() any { return new([MaxMessage]byte) }}
