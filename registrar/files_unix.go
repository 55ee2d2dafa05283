//go:build unix

package registrar

import (
	"math"
	"syscall"
)

// openFiles returns how many files this process may have open.
func openFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt32 // not known: accepting will tell
	}
	return int(min(limit.Cur, math.MaxInt32))
}
