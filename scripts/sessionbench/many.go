package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"time"

	"rserpool/asap/transport"
	"rserpool/pooluser"
)

// manyPool is the pool of runMany's element.
const manyPool = "many"

// opening is how many sessions are opened at a time.
const opening = 64

// settled bounds the wait for goroutines and sessions to end after the last close.
const settled = 10 * time.Second

// runMany opens many sessions to one element in a process of its own, uses each, lets
// them be for a while, closes them, and prints what they cost at either end. It does so
// twice: what the first round leaves is for sharing (descriptors of goroutines that the
// runtime keeps for the next ones, tables that have grown), what the second one adds to
// it is lost.
func runMany(ctx context.Context, args []string, out io.Writer) (err error) {
	var registrar transport.Endpoint
	fs := flag.NewFlagSet("sessionbench many", flag.ContinueOnError)
	registrarFlag(fs, &registrar)
	n := fs.Int("sessions", 10000, "sessions at a time")
	idle := fs.Duration("idle", 12*time.Second, "how long they are left alone before the count, some heartbeats long")
	if err := fs.Parse(args); err != nil {
		return err
	}
	at, err := startElement(ctx, registrar, *n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, at.close()) }()
	resolver, err := newResolver(registrar)
	if err != nil {
		return err
	}
	defer resolver.Stop()
	if err := registered(ctx, resolver); err != nil {
		return err
	}
	if _, err := count(ctx, resolver, *n, 0, at.ask); err != nil {
		return err
	}
	c, err := count(ctx, resolver, *n, *idle, at.ask)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(out, c)
	return err
}

// registered waits until the registrar knows the element.
func registered(ctx context.Context, resolver *pooluser.Resolver) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("the element does not register"))
	defer cancel()
	for {
		if answer, err := resolver.Renew(ctx, manyPool); err == nil && len(answer.Elements) == 1 {
			return nil
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// cost is what sessions cost at both ends.
type cost struct {
	sessions            int
	user, element       [3]usage // before, with the sessions, after
	opened, transferred time.Duration
}

// count opens sessions and measures.
func count(ctx context.Context, resolver *pooluser.Resolver, n int, idle time.Duration, element func() (usage, error)) (c cost, err error) {
	c.sessions = n
	look := func(i, sessions int) error {
		var errUser, errElement error
		c.user[i], errUser = used(sessions)
		c.element[i], errElement = element()
		return errors.Join(errUser, errElement)
	}
	if err := look(0, 0); err != nil {
		return c, err
	}
	begin := time.Now()
	sessions, err := openSessions(ctx, resolver, n)
	c.opened = time.Since(begin)
	if err != nil {
		return c, closeSessions(sessions, err)
	}
	begin = time.Now()
	for i, s := range sessions {
		if err := exchange(ctx, s, i); err != nil {
			return c, closeSessions(sessions, err)
		}
	}
	c.transferred = time.Since(begin)
	if err := sleep(ctx, idle); err != nil {
		return c, closeSessions(sessions, err)
	}
	err = look(1, n)
	if err := closeSessions(sessions, err); err != nil {
		return c, err
	}
	for begin := time.Now(); ; {
		if err := look(2, 0); err != nil {
			return c, err
		}
		if c.element[2].Sessions == 0 && c.element[2].Goroutines <= c.element[0].Goroutines && c.user[2].Goroutines <= c.user[0].Goroutines {
			return c, nil
		}
		if time.Since(begin) > settled {
			return c, fmt.Errorf("left after the end of all sessions: %d at the element; goroutines %d and %d, were %d and %d",
				c.element[2].Sessions, c.user[2].Goroutines, c.element[2].Goroutines, c.user[0].Goroutines, c.element[0].Goroutines)
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return c, err
		}
	}
}

// openSessions opens sessions, some at a time. Those that were opened are returned with
// an error too.
func openSessions(ctx context.Context, resolver *pooluser.Resolver, n int) ([]*pooluser.Session, error) {
	var (
		mu       sync.Mutex
		sessions []*pooluser.Session
		errs     []error
		workers  sync.WaitGroup
	)
	for w := range min(opening, n) {
		workers.Go(func() {
			for range (n - w + opening - 1) / opening {
				s, err := resolver.Open(ctx, manyPool, pooluser.SessionConfig{Timers: pooluser.Patient})
				mu.Lock()
				if err != nil {
					errs = append(errs, err)
					mu.Unlock()
					return
				}
				sessions = append(sessions, s)
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	return sessions, errors.Join(errs...)
}

// closeSessions closes them and returns err and what went wrong.
func closeSessions(sessions []*pooluser.Session, err error) error {
	errs := []error{err}
	for _, s := range sessions {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// exchange makes one request.
func exchange(ctx context.Context, s *pooluser.Session, i int) error {
	want := fmt.Sprintf("request %d", i)
	if err := s.Send(ctx, pooluser.Message{Data: []byte(want)}); err != nil {
		return err
	}
	got, err := s.Receive(ctx)
	if err == nil && string(got.Data) != want {
		err = fmt.Errorf("%q was echoed as %q", want, got.Data)
	}
	return err
}

// String returns a table.
func (c cost) String() string {
	row := func(end string, u [3]usage) string {
		per := func(with, before uint64) float64 {
			return (float64(with) - float64(before)) / float64(c.sessions) / 1024
		}
		return fmt.Sprintf("| %s | %d | %.2f | %.1f KiB | %.1f KiB | %.1f KiB | %d | %.1f KiB |\n", end, c.sessions,
			float64(u[1].Goroutines-u[0].Goroutines)/float64(c.sessions),
			per(u[1].Heap, u[0].Heap), per(u[1].Stacks, u[0].Stacks), per(u[1].Resident, u[0].Resident),
			u[2].Goroutines-u[0].Goroutines, float64(int64(u[2].Heap)-int64(u[0].Heap))/1024)
	}
	return "| end | sessions | goroutines each | heap each | stacks each | resident each | goroutines left | heap left |\n|---|---:|---:|---:|---:|---:|---:|---:|\n" +
		row("user", c.user) + row("element", c.element) +
		fmt.Sprintf("\nThe second of two rounds. Opened in %v, %d at a time; one request and answer over each in %v, one after the other (%s, GOMAXPROCS %d).\n",
			c.opened.Round(time.Millisecond), opening, c.transferred.Round(time.Millisecond), runtime.Version(), runtime.GOMAXPROCS(0))
}

// process is an element in a process of its own.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func startElement(ctx context.Context, registrar transport.Endpoint, sessions int) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, self, elementCommand, "--registrar", registrar.String(),
		"--pool", manyPool, "--listen", "tcp://127.0.0.1", "--max-sessions", strconv.Itoa(sessions))}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = json.NewDecoder(bufio.NewReader(stdout))
	return p, p.cmd.Start()
}

// ask returns what the element uses.
func (p *process) ask() (u usage, err error) {
	if _, err := fmt.Fprintln(p.in); err != nil {
		return u, err
	}
	return u, p.out.Decode(&u)
}

func (p *process) close() error {
	err := p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it was killed
	return err
}
