package endtoend

import "syscall"

// ownGroup gives a process a group of its own, to be signalled with all its
// descendants, and lets it die with the tests.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
