package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// lab is the scene of all checks. It is used by one goroutine.
type lab struct {
	out            string // the lab's folder
	started        time.Time
	group          string
	processes      []*process
	port           int // of the last server of the group
	commands       int // rspctl runs, to number their logs
	passed, failed int
}

// errStop ends a group whose further checks make no sense.
var errStop = errors.New("group stopped")

// take reports whether no other guest has taken the group.
func (l *lab) take(g group) bool {
	err := os.Mkdir(filepath.Join(l.out, "log", "taken", g.name), 0o755)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		l.check("take "+g.name, err)
	}
	return err == nil
}

func (l *lab) runGroup(g group) {
	begin := time.Now()
	l.group = g.name
	defer func() {
		if r := recover(); r != nil && r != errStop { //nolint:errorlint // identity is meant
			l.check("runs to its end", fmt.Errorf("panic: %v", r))
		}
		l.stopAll()
		fmt.Printf("-- %s took %.0f s\n", g.name, time.Since(begin).Seconds())
	}()
	fmt.Printf("-- %s: %s\n", g.name, g.about)
	l.port = 7100
	if err := l.buildNetwork(g.ipv6); err != nil {
		l.need("network", err)
	}
	g.run(l)
}

// check prints and counts one check and reports whether it passed.
func (l *lab) check(name string, err error) bool {
	if err != nil {
		l.failed++
		fmt.Printf("FAIL %s: %s: %s\n", l.group, name, strings.ReplaceAll(err.Error(), "\n", " | "))
		return false
	}
	l.passed++
	fmt.Printf("ok %s: %s\n", l.group, name)
	return true
}

// need is check for what the rest of the group stands on.
func (l *lab) need(name string, err error) {
	if !l.check(name, err) {
		panic(errStop)
	}
}

// note prints a measured value that is no check.
func (l *lab) note(format string, args ...any) {
	fmt.Printf("   %s: %s\n", l.group, fmt.Sprintf(format, args...))
}

// errEnded says that a program has ended, so that it is no use to wait for it.
var errEnded = errors.New("has ended")

// within repeats condition until it returns nil, and returns its last error when
// that takes longer than limit or a program that it needs has ended.
func within(limit time.Duration, condition func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := condition()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) || errors.Is(err, errEnded) {
			return fmt.Errorf("within %v: %w", limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// run runs a short command to its end in the root namespace.
func run(args ...string) error {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
