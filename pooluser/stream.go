package pooluser

import (
	"context"

	"rserpool/asap/transport"
)

// dataOf is an association without its control channel.
type dataOf struct {
	transport.Conn
	next func(ctx context.Context) (transport.Message, error)
}

func newStream(conn transport.Conn, ppid uint32) *transport.Stream {
	return transport.NewStream(dataOf{conn, transport.Receiver(conn)}, ppid)
}

// Next waits for the next message that is not ASAP's.
func (d dataOf) Next(ctx context.Context) (transport.Message, error) {
	for {
		m, err := d.next(ctx)
		if err != nil || m.PPID != transport.PPIDASAP {
			return m, err
		}
	}
}
