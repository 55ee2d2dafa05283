// Package systemd tells the service manager how a program does, where it was
// started as a service of Type=notify.
package systemd

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"
)

// Messages for Notify.
const (
	Ready     = daemon.SdNotifyReady
	Reloading = daemon.SdNotifyReloading
	Stopping  = daemon.SdNotifyStopping
)

// Notify tells the service manager, if there is one.
func Notify(log logrus.FieldLogger, message string) {
	if _, err := daemon.SdNotify(false, message); err != nil {
		log.WithError(err).Warn("service manager not told")
	}
}

// Status is a message with a line for people.
func Status(format string, args ...any) string { return "STATUS=" + fmt.Sprintf(format, args...) }

// Extend asks for more time than the unit allows for the end.
func Extend(d time.Duration) string { return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds()) }

// Watchdog tells the service manager, where it asks (WatchdogSec=), twice as often as
// it must that the program lives, until ctx ends. It does so only when alive
// returns: the service manager ends a program that hangs there.
func Watchdog(ctx context.Context, log logrus.FieldLogger, alive func()) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.WithError(err).Warn("no watchdog")
	}
	if interval <= 0 {
		return
	}
	ticker := time.NewTicker(interval / 2)
	defer ticker.Stop()
	for ctx.Err() == nil { // also where the ticker has won
		alive()
		Notify(log, daemon.SdNotifyWatchdog)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
