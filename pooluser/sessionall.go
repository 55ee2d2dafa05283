package pooluser

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// sendToAllAtATime bounds the connections that SendToAll makes at a time.
const sendToAllAtATime = 16

// SendToAll sends a message to every element of the pool, each over a connection of its
// own, and waits for no answer: the send-to-all option of RFC 5352, section 6.5.5. The
// elements in except get none, which is for a sender that is in the pool itself. There
// is no failover. Of cfg, Timers.Connect, PPID and MaxMessage count. Over TCP it waits
// until the element has ended the session too, for Timers.Connect at most.
//
// Elements that can't be reached are reported. They are the Attempts of the error, a
// *DialError then; other errors are those of Resolve and Validate, and why the message
// can't be sent to anybody, as from Session.Send.
func (r *Resolver) SendToAll(ctx context.Context, pool param.PoolHandle, cfg SessionConfig, m Message, except ...param.PEID) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("send to all of pool %q: %w", pool, err)
	}
	cfg = cfg.withDefaults()
	if err := cfg.sendable(m); err != nil {
		return fmt.Errorf("send to all of pool %q: %w", pool, err)
	}
	answer, err := r.Resolve(ctx, pool)
	if err != nil {
		return err
	}
	var (
		work  sync.WaitGroup
		slots = make(chan struct{}, sendToAllAtATime)
		mu    sync.Mutex
		tried []Attempt
	)
	for _, e := range answer.Elements {
		if slices.Contains(except, e.ID) {
			continue
		}
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			if err := r.sendOnce(ctx, pool, e, cfg, m); err != nil {
				mu.Lock()
				defer mu.Unlock()
				tried = append(tried, Attempt{Element: e, Err: err})
			}
		})
	}
	work.Wait()
	if tried == nil {
		return nil
	}
	return &DialError{Pool: pool, Attempts: tried, Err: context.Cause(ctx)}
}

// sendOnce sends a message to one element.
func (r *Resolver) sendOnce(ctx context.Context, pool param.PoolHandle, e param.PoolElement, cfg SessionConfig, m Message) error {
	r.note(pool, e.ID)
	since := time.Now()
	within, cancel := context.WithTimeout(ctx, cfg.Timers.Connect)
	defer cancel()
	link, err := r.dialLink(within, e.User, linkConfig{maxMessage: cfg.MaxMessage, defaultPPID: cfg.PPID})
	if err == nil {
		_, err = link.send(within, transport.Message{Data: m.Data, PPID: m.PPID, Stream: m.Stream})
		if err == nil {
			link.linger(within)
		}
		if left := link.leave(err == nil); left != nil {
			r.cfg.Log.WithError(left).Debug("send to all: close")
		}
	}
	if err != nil && ctx.Err() == nil && judge(err) == unreachable && !refused(err) {
		if reportErr := r.blame(ctx, pool, e, since); reportErr != nil {
			r.cfg.Log.WithError(reportErr).Debug("send to all: report")
		}
	}
	return err
}
