package ringtest

import (
	"fmt"
	"reflect"
	"strings"

	"rserpool/enrp/ring"
)

// Coverage counts what happened in schedules, to show that the rare cases did.
type Coverage struct {
	Schedules   uint64
	Steps       uint64
	Faults      uint64
	Entries     uint64 // delivered, at all members
	ViewChanges uint64 // installs at all members, but for first views
	Remainders  uint64 // installs with a rest of the old view delivered before
	Torn        uint64 // views that some member never installed
	Competing   uint64 // calls sent while another member that they go to calls
	Merges      uint64 // exchanges where two sides had what the other lacked
	Interrupted uint64 // exchanges that a view change interrupted
	Restarts    uint64 // under the identifier of a member of a view that goes on
	Deaf, Mute  uint64
	OneWay      uint64
	Crashes     uint64
	Pauses      uint64
	Busy        uint64 // outputs that took long to apply
	Jumps       uint64
	Splits      uint64
	Leaves      uint64
	Traps       uint64 // that went off
	Refused     uint64 // proposals that a full queue did not take
	Grants      uint64
	HeldOff     uint64
	// TokenLost counts losses noticed, by the state in which.
	TokenLost [ring.Left + 1]uint64
}

// Add adds another's counts.
func (c *Coverage) Add(d Coverage) {
	a, b := reflect.ValueOf(c).Elem(), reflect.ValueOf(d)
	for i := range a.NumField() {
		if f := a.Field(i); f.Kind() == reflect.Array {
			for j := range f.Len() {
				f.Index(j).SetUint(f.Index(j).Uint() + b.Field(i).Index(j).Uint())
			}
		} else {
			f.SetUint(f.Uint() + b.Field(i).Uint())
		}
	}
}

// String lists the counts.
func (c Coverage) String() string {
	var b strings.Builder
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Uint64 {
			fmt.Fprintf(&b, "%-12s %10d\n", v.Type().Field(i).Name, f.Uint())
		}
	}
	for s, n := range c.TokenLost {
		if n > 0 {
			fmt.Fprintf(&b, "%-12s %10d\n", "lost "+ring.State(s).String(), n)
		}
	}
	return b.String()
}

// Missing names the rare cases that happened less often than they must for
// so many schedules to prove anything. The floors are per 1,000 schedules.
func (c Coverage) Missing() []string {
	var missing []string
	for _, floor := range []struct {
		name  string
		count uint64
		min   float64
	}{
		{"view changes", c.ViewChanges, 20000}, {"recoveries with a remainder", c.Remainders, 1000},
		{"torn installs", c.Torn, 400}, {"competing calls", c.Competing, 150},
		{"merges with conflicts", c.Merges, 3000}, {"interrupted exchanges", c.Interrupted, 1000},
		{"restarts under the old identifier", c.Restarts, 400},
		{"deaf members", c.Deaf, 250}, {"mute members", c.Mute, 400}, {"one-way links", c.OneWay, 300},
		{"pauses", c.Pauses, 500}, {"slow applications", c.Busy, 300}, {"clock jumps", c.Jumps, 80}, {"splits", c.Splits, 250}, {"leaves", c.Leaves, 70},
		{"refused proposals", c.Refused, 1000}, {"grants", c.Grants, 700},
		{"tokens lost while hungry", c.TokenLost[ring.Hungry], 2000},
		{"tokens lost while eating", c.TokenLost[ring.Eating], 2000},
		{"tokens lost while promised", c.TokenLost[ring.Promised], 300},
	} {
		if want := floor.min * float64(c.Schedules) / 1000; float64(floor.count) < want {
			missing = append(missing, fmt.Sprintf("%s: %d, not %.0f", floor.name, floor.count, want))
		}
	}
	return missing
}

func (c *Coverage) installed(r *record, e ring.Installed) {
	if e.Cause == ring.CauseStart {
		return
	}
	c.ViewChanges++
	if r.prev != nil && r.prev.event.Exchange && len(r.prev.event.View.Members) > 1 && !r.ended[r.prev.id] {
		c.Interrupted++
	}
}
