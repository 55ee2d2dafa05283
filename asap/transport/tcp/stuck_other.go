//go:build !linux

package tcp

import "time"

// Stuck can't tell here and thinks the worst.
func (c *conn) Stuck(time.Duration) bool { return true }
