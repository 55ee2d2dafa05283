//go:build !linux

package forward

import "time"

// setUserTimeout does nothing: keep-alives alone find a silent peer.
func setUserTimeout(int, time.Duration) error { return nil }
