package poolelement

import (
	"testing"
	"time"
)

func TestLoadIsReportedWithHysteresisAndAtIntervals(t *testing.T) {
	b := in(t, Registered, func(c *Config) { c.LoadStep, c.LoadInterval = 0.1, 5*time.Second })
	b.setLoad(LoadOf(0.09))
	if got := b.deadline(); !got.Equal(b.t4) {
		t.Errorf("a small change is reported at %v", got)
	}
	b.setLoad(LoadOf(0.5))
	b.tick(b.now.Add(4 * time.Second))
	b.expect(Registered)
	b.now = b.deadline()
	if got := b.now.Sub(start); got != 5*time.Second {
		t.Errorf("the load is reported after %v, want 5s", got)
	}
	b.setLoad(LoadOf(0.6)) // the latest value counts
	b.tick(b.now)
	reg := registration(t, b.expect(Reregistering, "request Registration"))
	if reg.Element.Policy.Load != LoadOf(0.6) {
		t.Errorf("reported %d, want %d", reg.Element.Policy.Load, LoadOf(0.6))
	}
	b.setLoad(LoadOf(0.9)) // while the answer is awaited
	b.grant()
	b.take()
	if got := b.deadline().Sub(b.now); got != 5*time.Second {
		t.Errorf("the next report comes after %v, want 5s", got)
	}
	b.setLoad(LoadOf(0.65)) // fell back meanwhile
	if got := b.deadline(); !got.Equal(b.t4) {
		t.Errorf("a report is due at %v though the load is near the reported one", got)
	}
}
