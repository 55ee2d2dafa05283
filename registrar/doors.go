package registrar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/transport"
)

// This file is about the endpoints that the registrar listens on.

type listening struct {
	transport.Listener
	port protocol
}

// listen opens an endpoint, on all networks that it stands for.
func (r *Registrar) listen(ctx context.Context, port protocol, endpoint transport.Endpoint) ([]listening, error) {
	networks, opt := r.cfg.Networks, r.options()
	if port == protoENRP {
		networks, opt = r.cfg.Peering.Networks, r.peerOptions()
	}
	found, err := networks.Listen(ctx, endpoint, opt)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", port, err)
	}
	r.doors.Lock()
	defer r.doors.Unlock()
	var opened []listening
	for _, l := range found {
		if r.shut {
			err = errors.Join(err, net.ErrClosed, l.Close())
			continue
		}
		opened = append(opened, listening{l, port})
	}
	r.listeners = append(r.listeners, opened...)
	return opened, err
}

// tell says in the log where others reach this registrar.
func (r *Registrar) tell(opened []listening) {
	for _, l := range opened {
		r.cfg.Log.WithFields(logrus.Fields{"protocol": string(l.port), "network": l.Network(), "addresses": texts(l.Addrs())}).Info("listening")
	}
}

// close closes the endpoints for a protocol.
func (r *Registrar) close(port protocol) error {
	r.doors.Lock()
	defer r.doors.Unlock()
	var errs []error
	r.listeners = slices.DeleteFunc(r.listeners, func(l listening) bool {
		if l.port == port {
			errs = append(errs, l.Close())
		}
		return l.port == port
	})
	return errors.Join(errs...)
}

// shutDoors closes all endpoints for good.
func (r *Registrar) shutDoors() error {
	r.doors.Lock()
	defer r.doors.Unlock()
	var errs []error
	for _, l := range r.listeners {
		errs = append(errs, l.Close())
	}
	r.listeners, r.shut = nil, true
	return errors.Join(errs...)
}

// openPause is the time between two attempts to listen.
const openPause = time.Second

// open listens for elements and users: from now on they are served.
func (r *Registrar) open() {
	var opened []listening
	for _, endpoint := range r.entrances {
		for {
			listeners, err := r.listen(r.ctx, protoASAP, endpoint)
			if err == nil {
				opened = append(opened, listeners...)
				break
			}
			if r.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			r.cfg.Log.WithError(err).Error("cannot listen for elements and users; trying again")
			select {
			case <-r.ctx.Done():
				return
			case <-time.After(openPause):
			}
		}
	}
	r.tell(opened)
	for _, l := range opened {
		r.group.Go(func() { r.accept(l) })
	}
	r.post(func(time.Time) {
		r.announcer.listeners = opened
		if !r.owner.leaving {
			r.owner.serving = true
			r.serve()
		}
	})
}

// accept takes connections until the listener is closed.
func (r *Registrar) accept(l listening) {
	for {
		t, err := l.Accept(r.ctx)
		if err != nil {
			if r.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Most likely too many open files: others may close theirs.
			r.notices.accepts.log(r.cfg.Log.WithError(err).Warn, "cannot accept a connection", time.Now())
			select {
			case <-r.ctx.Done():
				return
			case <-time.After(acceptPause):
			}
			continue
		}
		c := r.newConn(t, l.port)
		limits := r.limits()
		if limit, ok := r.census.enter(c, min(limits.Connections, r.room()), limits.ConnectionsPerAddress); !ok {
			r.exceeded(limit)
			r.metrics.closed.WithLabelValues(reasonLimit).Inc()
			c.log.WithField("limit", limit).Debug("connection refused")
			c.cancel(errEnded{reasonLimit})
			// It was never used.
			_ = t.Abort()
			continue
		}
		r.start(c)
	}
}

// room is the number of connections for which there are files, besides those to be
// kept for connections to elements, dialled and being dialled, and for the
// registrar's own use.
func (r *Registrar) room() int {
	const own = 32
	return max(1, r.files-min(2*r.limits().Dials+own, r.files/4))
}

const acceptPause = 50 * time.Millisecond
