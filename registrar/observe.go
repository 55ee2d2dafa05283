package registrar

import (
	"bytes"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap"
	"rserpool/registrar/handlespace"
)

// observe brings everything in line with a change of the handlespace.
func (o *owner) observe(event handlespace.Event, now time.Time) {
	o.peers.observe(event, now)
	o.expiry.observe(event)
	switch e := event.(type) {
	case handlespace.Registered:
		o.attend(e.Record, now)
		if e.Previous == nil || e.Previous.Suspect || !bytes.Equal(e.Previous.Encoded(), e.Record.Encoded()) {
			o.subscriptions.changed(e.Handle, now)
		}
		if o.r.debugging() {
			o.logElement(e.Record).WithField("again", e.Previous != nil).Debug("element registered")
		}
	case handlespace.Adopted:
		o.attend(e.Record, now)
		if e.Previous == nil || e.Previous.Suspect != e.Record.Suspect || !bytes.Equal(e.Previous.Encoded(), e.Record.Encoded()) {
			o.subscriptions.changed(e.Handle, now)
		}
		if o.r.debugging() {
			o.logElement(e.Record).WithField("home", e.Record.Home().ID.String()).Debug("element learnt from another side")
		}
	case handlespace.Rehomed:
		o.attend(e.Record, now)
		o.subscriptions.changed(e.Handle, now)
		if o.r.debugging() {
			o.logElement(e.Record).WithFields(logrus.Fields{
				"home": e.Record.Home().ID.String(), "before": e.Previous.Home().ID.String(),
			}).Debug("element taken over")
		}
	case handlespace.Confirmed:
		if e.Record.Home() == o.home {
			o.keepAlive.watch(&o.attended(e.Record.Key()).watch, e.Record.Generation, now)
		}
		if o.r.debugging() {
			o.logElement(e.Record).WithField("home", e.Record.Home().ID.String()).Debug("element accepted its new home")
		}
	case handlespace.Removed:
		key := e.Record.Key()
		switch e.Cause {
		case handlespace.Expired, handlespace.Unreachable, handlespace.Superseded:
			o.tellRemoved(key)
		}
		o.release(key)
		o.subscriptions.changed(e.Handle, now)
		o.r.metrics.removals.WithLabelValues(e.Cause.String()).Inc()
		if e.PoolRemoved {
			o.r.metrics.forget(e.Handle)
		}
		o.r.notices.removed.logBy(func() func(...any) {
			return o.logElement(e.Record).WithField("cause", e.Cause.String()).Info
		}, "element removed", now)
	case handlespace.Suspected:
		o.subscriptions.changed(e.Handle, now)
		o.r.metrics.removals.WithLabelValues("suspected").Inc()
		why := "the pool loses too many at once"
		if e.Record.Held().IsZero() {
			o.r.exceeded("removal_share")
		} else {
			why = "registrars were lost a moment ago"
		}
		o.r.notices.suspected.log(o.logElement(e.Record).WithField("cause", e.Cause.String()).Warn,
			"element marked suspect instead of removed: "+why, now)
	case handlespace.Recovered:
		o.subscriptions.changed(e.Handle, now)
		o.r.notices.recovered.log(o.logElement(e.Record).Info, "suspect element answered", now)
	default:
		return // refusals and reports would push changes out of the feed
	}
	o.r.feed.Publish(event, now)
}

// observeAll does so for what one command has changed.
func (o *owner) observeAll(events []handlespace.Event, now time.Time) {
	moved, mine := 0, 0
	for _, event := range events {
		if e, ok := event.(handlespace.Rehomed); ok {
			if moved++; moved == 1 {
				o.peers.rehomed(e.Previous.Home())
			}
			if e.Record.Home() == o.home {
				mine++
			}
			if moved == len(events) {
				o.tookOver(e.Previous.Home(), moved, mine, now)
			}
		}
		o.observe(event, now)
	}
}

// takeover counts the elements that commands have moved from one home.
type takeover struct {
	from        handlespace.HomeID
	moved, mine int
}

// tookOver logs a takeover when nothing is left to move: each command moves only some.
func (o *owner) tookOver(from handlespace.HomeID, moved, mine int, now time.Time) {
	if o.takeover.from != from {
		o.takeover = takeover{from: from}
	}
	o.takeover.moved += moved
	o.takeover.mine += mine
	if slices.Contains(o.space.HomeIDs(), from) {
		return
	}
	o.r.notices.rehomed.log(o.r.cfg.Log.WithFields(logrus.Fields{
		"from": from.ID.String(), "incarnation": from.Incarnation, "elements": o.takeover.moved, "here": o.takeover.mine,
	}).Info, "elements taken over from a registrar that is gone", now)
	o.takeover = takeover{}
}

// attend watches an element of this registrar, and forgets one of another.
func (o *owner) attend(r *handlespace.Record, now time.Time) {
	if r.Home() != o.home {
		o.release(r.Key())
		return
	}
	a := o.attended(r.Key())
	reached := a.conn != nil && !a.conn.gone
	switch {
	case !r.HasASAP():
		o.keepAlive.forget(&a.watch)
		o.tidy(a)
	case !r.Confirmed:
		if !reached {
			o.clients.add(a, o.r.client(r.ASAP().Addrs[0]))
		}
		o.keepAlive.claim(&a.watch, r.Generation, now)
	default:
		o.keepAlive.watch(&a.watch, r.Generation, now)
		if !reached {
			o.keepAlive.fall(&a.watch, now)
		}
	}
}

// debugging spares making lines for the log that are not wanted there, one or more
// per registration.
func (r *Registrar) debugging() bool {
	entry, ok := r.cfg.Log.(*logrus.Entry)
	return !ok || entry.Logger.IsLevelEnabled(logrus.DebugLevel)
}

func (o *owner) logElement(r *handlespace.Record) logrus.FieldLogger {
	return o.r.cfg.Log.WithFields(logrus.Fields{"pool": handleText(r.Handle), "element": r.ID.String()})
}

// tellRemoved tells an element that its registration has run out (ASAP-2.2.4-01)
// if an association to it is up (AMB-87), or that it is out because it did not
// answer, here or at the other side of a partition: when its process or network goes
// on it hears of that, and can register again at once.
func (o *owner) tellRemoved(key elementKey) {
	if c := o.reach(key); c != nil && !c.gone && !o.r.rsplib() {
		c.send(&asap.DeregistrationResponse{Handle: key.Handle, ID: key.ID})
	}
}
