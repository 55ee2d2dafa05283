package ringtest

import (
	"time"

	"rserpool/enrp/ring"
)

// Unhurried returns times for members in real time that must not leave each other out,
// on a machine that may do something else for some seconds. They find each other soon.
func Unhurried() ring.Timers {
	t := ring.WAN()
	t.HopTimeout, t.CollectWait, t.LostWait = 10*time.Second, 3*time.Second, 3*time.Second
	t.ProbeInterval = 20 * time.Millisecond
	return t
}
