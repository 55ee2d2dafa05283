package scripting

import (
	"context"

	"rserpool/asap/transport"
	"rserpool/poolelement"
)

// ServeSession takes one job, runs it and delivers the result. It makes the service a
// poolelement.Handler; its ServeConfig needs no cookies.
func (s *Service) ServeSession(ctx context.Context, session *poolelement.Session) error {
	return s.Serve(ctx, elementConn{session})
}

// elementConn is a session of package poolelement. Of its events none concerns a job:
// one that runs when the server drains goes on for as long as that allows.
type elementConn struct{ session *poolelement.Session }

func (c elementConn) Send(ctx context.Context, message []byte) error {
	return c.session.Send(ctx, transport.Message{Data: message, PPID: PPID})
}

func (c elementConn) Receive(ctx context.Context) ([]byte, error) {
	for {
		in, err := c.session.Receive(ctx)
		if err != nil || in.Kind == poolelement.Data {
			return in.Data, err
		}
	}
}
