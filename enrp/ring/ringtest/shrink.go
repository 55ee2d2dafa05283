package ringtest

import "errors"

// Shrink drops actions from a schedule that violates a promise for as long as the
// same check fails, and returns which it keeps. It tries large parts first.
func Shrink(seed uint64, opt Options) []int {
	opt.Trace = nil
	s := NewSchedule(seed, opt.Profile)
	keep := opt.Keep
	if keep == nil {
		for i := range s.Actions {
			keep = append(keep, i)
		}
	}
	check := failedCheck(seed, opt, keep)
	for size := (len(keep) + 1) / 2; size > 0; {
		dropped := false
		for from := 0; from < len(keep); {
			to := min(from+size, len(keep))
			less := append(append([]int{}, keep[:from]...), keep[to:]...)
			if failedCheck(seed, opt, less) == check {
				keep, dropped = less, true
			} else {
				from = to
			}
		}
		if !dropped || size > 1 {
			size /= 2
		}
	}
	return keep
}

// failedCheck names the check that fails with these actions, "" for none.
func failedCheck(seed uint64, opt Options, keep []int) string {
	opt.Keep = keep
	var v *Violation
	if errors.As(Run(seed, opt).Err, &v) {
		return v.Check
	}
	return ""
}
