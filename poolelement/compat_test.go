package poolelement

import (
	"strings"
	"testing"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
)

func TestCompatRsplib(t *testing.T) {
	rsplib := func(c *Config) { c.Compat = Rsplib }
	t.Run("LifeInMillisecondsAndThirtySecondCycle", func(t *testing.T) {
		b := newBench(t, rsplib)
		b.findA()
		b.join()
		if reg := registration(t, b.take()); reg.Element.Life != 90000 {
			t.Errorf("life on the wire is %d, want 90000", reg.Element.Life)
		}
		b.grant()
		if got := b.deadline().Sub(b.now); got != 30*time.Second {
			t.Errorf("re-registers after %v, want 30s", got)
		}
	})
	t.Run("ErrorWithoutRIsRefusedAndRepeatedEachCycle", func(t *testing.T) {
		b := in(t, Registering, rsplib)
		b.respond(false, param.CauseInvalidValues)
		b.expect(Failed, "registration failed")
		b.now = b.deadline()
		b.tick(b.now)
		b.expect(Registering, "request Registration")
		if got := b.now.Sub(start); got != 30*time.Second {
			t.Errorf("tried again after %v, want 30s", got)
		}
	})
	t.Run("ReregistersWhenTakenOver", func(t *testing.T) {
		b := in(t, Registered, rsplib)
		b.findB()
		b.expect(Reregistering, "home registrar changed", "request Registration")
	})
	t.Run("HandleOfThirtyThreeOctetsIsRefused", func(t *testing.T) {
		c := Config{Handle: param.PoolHandle(strings.Repeat("x", 33)), Compat: Rsplib}
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "Handle has 33 octets") {
			t.Errorf("Validate says %v", err)
		}
	})
	t.Run("AsapErrorIsARefusal", func(t *testing.T) {
		b := in(t, Registering, rsplib)
		b.result(b.now, &asap.Error{Causes: causesOf([]param.CauseCode{3})}, nil)
		b.expect(Failed, "registration failed")
	})
}
