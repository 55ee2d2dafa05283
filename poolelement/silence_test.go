package poolelement

import (
	"testing"
	"time"

	"rserpool/asap"
)

// keepAlives lets the home send keep-alives after the given pauses, in seconds.
func (b *bench) keepAlives(pauses ...int) {
	for _, p := range pauses {
		b.now = b.now.Add(time.Duration(p) * time.Second)
		b.receive(b.now, &asap.EndpointKeepAlive{Registrar: 0x0a, Handle: pool}, true)
	}
	b.take()
}

func TestSilenceOfTheHomeIsNoticed(t *testing.T) {
	b := in(t, Registered, nil)
	b.keepAlives(10, 20, 15)
	if got := b.deadline().Sub(b.now); got != 60*time.Second {
		t.Errorf("the home may be silent for %v, want 60s", got)
	}
	b.keepAlives(30)
	if got := b.deadline().Sub(b.now); got != 90*time.Second {
		t.Errorf("the home may be silent for %v, want 90s", got)
	}
	b.now = b.deadline()
	b.tick(b.now)
	b.expect(Reregistering, "request Registration")
	b.grant()
	b.take()
	if got := b.deadline(); !got.Equal(b.t4) {
		t.Errorf("next deadline is %v, want T4's, %v", got, b.t4)
	}
}

func TestElementThatWasStoppedRegistersAgain(t *testing.T) {
	b := in(t, Registered, nil)
	b.keepAlives(1, 1, 1, 1, 20) // the last one waited while the process was stopped
	b.tick(b.now)
	b.expect(Reregistering, "request Registration")
}

func TestSilenceProvesNothing(t *testing.T) {
	for name, prepare := range map[string]func(*bench){
		"AfterTwoKeepAlives": func(b *bench) { b.keepAlives(1, 1) },
		"OfOthers": func(b *bench) {
			b.keepAliveFrom(false, 0x0b)
			b.keepAliveFrom(false, 0x0b)
			b.keepAliveFrom(false, 0x0b)
		},
		"AfterReregistration": func(b *bench) { b.keepAlives(1, 1, 1); b.t4Expires(); b.grant() },
		"OfANewHome":          func(b *bench) { b.keepAlives(1, 1, 1); b.findB() },
		"WhenItIsToBeIgnored": func(b *bench) { b.cfg.Silence = -1; b.keepAlives(1, 1, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			b := in(t, Registered, nil)
			prepare(b)
			if got := b.deadline(); !got.Equal(b.t4) {
				t.Errorf("next deadline is %v, want T4's, %v", got, b.t4)
			}
		})
	}
}
