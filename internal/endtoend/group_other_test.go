//go:build unix && !linux

package endtoend

import "syscall"

// ownGroup gives a process a group of its own, to be signalled with all its
// descendants.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
