package ringtest

import (
	"reflect"
	"slices"
	"testing"

	"rserpool/enrp/ring/internal/fault"
)

// A seed that fails is shrunk to actions of which each is needed, and what is printed
// to replay them does so.
func TestFailuresAreShrunkAndReplayed(t *testing.T) {
	opt := Options{Faults: fault.SkipDeadMember}
	seed := uint64(1)
	r := Run(seed, opt)
	for ; r.Err == nil; r = Run(seed, opt) {
		if seed++; seed > 500 {
			t.Fatal("no seed fails")
		}
	}
	check := r.Err.(*Violation).Check
	keep := Shrink(seed, opt)
	t.Logf("seed %d: %d of %d actions: %v", seed, len(keep), len(r.Schedule.Actions), r.Err)
	if len(keep) == 0 || len(keep) > 10 || len(keep) > len(r.Schedule.Actions)/4 {
		t.Errorf("%d of %d actions are left", len(keep), len(r.Schedule.Actions))
	}
	for i := range keep {
		if less := slices.Delete(slices.Clone(keep), i, i+1); failedCheck(seed, opt, less) == check {
			t.Errorf("it fails without action %d as well", keep[i])
		}
	}
	t.Setenv("KEEP", formatKeep(keep))
	if again := keepList(t); !slices.Equal(again, keep) || failedCheck(seed, opt, again) != check {
		t.Errorf("KEEP=%s replays %v, not %v", formatKeep(keep), again, keep)
	}
	t.Setenv("KEEP", formatKeep(nil))
	if none := keepList(t); none == nil || len(none) > 0 {
		t.Errorf("KEEP=%s replays %v", formatKeep(nil), none)
	}
}

// Schedules without one of the rare cases are not enough.
func TestRareCasesAreMissed(t *testing.T) {
	enough := func() (c Coverage) {
		for i := range reflect.TypeOf(c).NumField() {
			if f := reflect.ValueOf(&c).Elem().Field(i); f.Kind() == reflect.Array {
				for j := range f.Len() {
					f.Index(j).SetUint(1e6)
				}
			} else {
				f.SetUint(1e6)
			}
		}
		c.Schedules = 1000
		return c
	}
	if missing := enough().Missing(); len(missing) > 0 {
		t.Fatalf("missed with a million of each: %v", missing)
	}
	for name, forget := range map[string]func(*Coverage){
		"view changes":               func(c *Coverage) { c.ViewChanges = 0 },
		"recoveries with remainder":  func(c *Coverage) { c.Remainders = 0 },
		"torn installs":              func(c *Coverage) { c.Torn = 0 },
		"competing coordinators":     func(c *Coverage) { c.Competing = 0 },
		"merges with conflicts":      func(c *Coverage) { c.Merges = 0 },
		"interrupted exchanges":      func(c *Coverage) { c.Interrupted = 0 },
		"restarts":                   func(c *Coverage) { c.Restarts = 0 },
		"deaf members":               func(c *Coverage) { c.Deaf = 0 },
		"mute members":               func(c *Coverage) { c.Mute = 0 },
		"one-way links":              func(c *Coverage) { c.OneWay = 0 },
		"full queues":                func(c *Coverage) { c.Refused = 0 },
		"tokens lost with a promise": func(c *Coverage) { clear(c.TokenLost[:]) },
	} {
		c := enough()
		if forget(&c); len(c.Missing()) == 0 {
			t.Errorf("nobody misses %s", name)
		}
	}
	few := Run(1, Options{}).Coverage
	few.Schedules = 1000
	if missing := few.Missing(); len(missing) < 10 {
		t.Errorf("one schedule in place of 1,000 lacks no more than %v", missing)
	}
}
