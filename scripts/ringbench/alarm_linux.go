package main

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// alarm sleeps more exactly than Go's timers, which have steps of a millisecond in
// a process that has nothing else to do.
type alarm struct{ file *os.File }

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	return &alarm{os.NewFile(uintptr(fd), "alarm")}, nil
}

func (a *alarm) sleep(d time.Duration) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	raw, err := a.file.SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := raw.Control(func(fd uintptr) { err = unix.TimerfdSettime(int(fd), 0, &spec, nil) })
	if err = errors.Join(ctlErr, err); err != nil {
		return os.NewSyscallError("timerfd_settime", err)
	}
	_, err = a.file.Read(make([]byte, 8))
	return err
}

func (a *alarm) close() { _ = a.file.Close() }
