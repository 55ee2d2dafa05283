package sidecar

import "testing"

func TestHealthChangesAfterRiseAndFall(t *testing.T) {
	// One character per check: '.' passes, 'x' fails; below it the health
	// after it: 'u'p, 'd'own, '?' unknown.
	for _, c := range []struct {
		name       string
		rise, fall int
		checks     string
		health     string
	}{
		{"FirstPassIsEnough", 3, 3, "..", "uu"},
		{"FirstFailuresAreCounted", 2, 3, "xxxx", "??dd"},
		{"PassAfterFailuresAtTheStart", 2, 3, "xx.", "??u"},
		{"FallNeedsFailuresInARow", 2, 3, ".xx.xxx", "uuuuuud"},
		{"RiseNeedsPassesInARow", 2, 3, "xxx.x..", "??ddddu"},
		{"OneAndOne", 1, 1, ".x.x", "udud"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := hysteresis{rise: c.rise, fall: c.fall}
			got := ""
			for _, check := range c.checks {
				before := h.health
				if changed := h.observe(check == '.'); changed != (h.health != before) {
					t.Errorf("reports a change: %v, from %v to %v", changed, before, h.health)
				}
				got += string("?ud"[h.health])
			}
			if got != c.health {
				t.Errorf("health was %s, want %s", got, c.health)
			}
		})
	}
}
