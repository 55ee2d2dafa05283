package pooluser

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"rserpool/asap/transport"
	"rserpool/asap/transport/framed"
)

// streamsConn notes the order of what is sent.
type streamsConn struct {
	transport.Conn // nil
	notes          []string
	err            error // of Flush
}

func (c *streamsConn) Send(_ context.Context, msgs ...transport.Message) error {
	for _, m := range msgs {
		c.notes = append(c.notes, fmt.Sprintf("%d on %d", m.PPID, m.Stream))
	}
	return nil
}

func (c *streamsConn) Flush(context.Context) error {
	c.notes = append(c.notes, "flush")
	return c.err
}

// The order of messages on one stream says nothing about those on another, and the cookie
// is to come before all data.
func TestASAP_3_8_03_DataOnOtherStreamsDoesNotOvertakeTheCookie(t *testing.T) {
	conn := &streamsConn{err: context.DeadlineExceeded}
	l := &assocLink{assoc: framed.Over(conn), ppid: 7}
	send := func(ppid uint32, stream uint16) error {
		_, err := l.send(t.Context(), transport.Message{Data: []byte("x"), PPID: ppid, Stream: stream})
		return err
	}
	check := func(err error, want ...string) {
		t.Helper()
		if err != nil || !slices.Equal(conn.notes, want) {
			t.Errorf("%q, %v; want %q", conn.notes, err, want)
		}
		conn.notes = nil
	}
	check(send(0, 5), "7 on 5") // no cookie so far
	check(send(transport.PPIDASAP, 0), "11 on 0")
	check(send(0, 0), "7 on 0")
	if err := send(0, 5); err != context.DeadlineExceeded {
		t.Errorf("%v, want that of Flush", err)
	}
	check(nil, "flush")
	conn.err = nil
	check(send(0, 5), "flush", "7 on 5")
	check(send(0, 6), "7 on 6")
	check(send(transport.PPIDASAP, 0), "11 on 0")
	check(send(0, 6), "flush", "7 on 6")
}
