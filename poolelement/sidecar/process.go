package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
)

// Restart says after which ends a command is started again.
type Restart string

// The kinds of Restart.
const (
	OnFailure Restart = "on-failure" // another exit code than 0, or a signal
	Always    Restart = "always"
	Never     Restart = "never"
)

// Process is a server that is run here. A zero field means its default.
//
// The command has a process group of its own, so that a terminal's signals don't
// reach it beside what Run sends, and its standard input is empty. On Linux it gets
// SIGTERM should this process die without Run's end.
type Process struct {
	// Command is the program and its arguments. No default.
	Command []string
	// Env is its environment. Default os.Environ.
	Env []string
	// Stdout and Stderr get its output. Default os.Stdout and os.Stderr,
	// which it then has itself: nothing is between.
	Stdout, Stderr io.Writer

	// Restart says when the command is started again, after a pause that
	// begins with RestartMin and doubles up to RestartMax. One that ran for
	// RestartMax begins with RestartMin again. Default OnFailure, 1 s, 1 min.
	Restart                Restart
	RestartMin, RestartMax time.Duration
	// RestartLimit bounds the restarts in a row, without a run of RestartMax
	// between. Default 0: none.
	RestartLimit int

	// StopSignal asks the process group to end. Default SIGTERM.
	StopSignal syscall.Signal
	// KillAfter is the time that it has for that, and what is left of the group
	// when the command itself has ended, before it is killed. Default 10 s.
	KillAfter time.Duration

	// Life, if set, runs beside each run of the command; ctx ends when the
	// command does or is to end, and Run waits for it.
	Life func(ctx context.Context)
	// Drain, if set, runs between the end of Run's ctx and StopSignal; its ctx
	// ends when the command does.
	Drain func(ctx context.Context)
	// Log gets starts and ends. Default: nothing is logged.
	Log logrus.FieldLogger

	start func() (child, error) // of tests
}

// ErrKilled tells that the process group did not end when asked to.
var ErrKilled = errors.New("killed, it did not end in time")

// StartError is that of a command that can't be started.
type StartError struct{ Err error }

func (e *StartError) Error() string { return "start the server: " + e.Err.Error() }
func (e *StartError) Unwrap() error { return e.Err }

// EndedError is the end of a command that was not asked to and is not started
// again.
type EndedError struct {
	Code   int            // its exit code
	Signal syscall.Signal // the signal that ended it, or 0
}

func (e *EndedError) Error() string { return "the server ended: " + e.how() }

func (e *EndedError) how() string {
	if e.Signal != 0 {
		return fmt.Sprintf("signal %d (%v)", int(e.Signal), e.Signal)
	}
	return fmt.Sprintf("exit code %d", e.Code)
}

func (p Process) withDefaults() Process {
	p.Restart = cmp.Or(p.Restart, OnFailure)
	p.RestartMin = cmp.Or(p.RestartMin, time.Second)
	p.RestartMax = cmp.Or(p.RestartMax, time.Minute)
	p.StopSignal = cmp.Or(p.StopSignal, syscall.SIGTERM)
	p.KillAfter = cmp.Or(p.KillAfter, 10*time.Second)
	if p.Stdout == nil {
		p.Stdout = os.Stdout
	}
	if p.Stderr == nil {
		p.Stderr = os.Stderr
	}
	if p.Log == nil {
		log := logrus.New()
		log.SetOutput(io.Discard)
		p.Log = log
	}
	if p.start == nil {
		p.start = p.exec
	}
	return p
}

// Validate names everything that is wrong.
func (p Process) Validate() error {
	p = p.withDefaults()
	var errs []error
	if len(p.Command) == 0 {
		errs = append(errs, errors.New("Command is missing"))
	}
	switch p.Restart {
	case OnFailure, Always, Never:
	default:
		errs = append(errs, fmt.Errorf("Restart is %q, must be %s, %s or %s", p.Restart, OnFailure, Always, Never))
	}
	if p.RestartMin < 0 || p.RestartMax < p.RestartMin {
		errs = append(errs, fmt.Errorf("RestartMin is %v and RestartMax %v, must not be negative and the latter not shorter", p.RestartMin, p.RestartMax))
	}
	if p.RestartLimit < 0 {
		errs = append(errs, fmt.Errorf("RestartLimit is %d, must not be negative", p.RestartLimit))
	}
	if p.KillAfter < 0 {
		errs = append(errs, fmt.Errorf("KillAfter is %v, must not be negative", p.KillAfter))
	}
	return errors.Join(errs...)
}

// Run runs the command, again when it ends, until ctx ends; then it drains, stops
// the command and returns nil, or ErrKilled if it had to be killed. Before that it
// returns when the command is not to be started again: nil after exit code 0, else
// an EndedError; or StartError. What comes from signals is passed on to the command
// while it runs. Nothing of the process group and of what Run started is left when it
// returns.
func (p Process) Run(ctx context.Context, signals <-chan os.Signal) error {
	if err := p.Validate(); err != nil {
		return err
	}
	p = p.withDefaults()
	// The kernel takes the end of the thread that started the command for the
	// end of this process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pauses := backoff{min: p.RestartMin, max: p.RestartMax, limit: p.RestartLimit}
	for first := true; ; first = false {
		began := time.Now()
		c, err := p.start()
		if err != nil && first {
			return &StartError{err}
		}
		if err == nil {
			p.Log.WithField("pid", c.pid()).Info("server started")
			err = p.attend(ctx, c, signals)
		}
		if ctx.Err() != nil {
			if errors.Is(err, ErrKilled) {
				return err
			}
			return nil // however it takes being stopped
		}
		pause, again := pauses.next(time.Since(began))
		if p.Restart == Never || p.Restart == OnFailure && err == nil || !again {
			return err
		}
		log := p.Log.WithField("again_in", pause.String())
		if err != nil {
			log = log.WithError(err)
		}
		log.Warn("server ended")
		if !p.rest(ctx, pause, signals) {
			return nil
		}
	}
}

// rest waits for so long, and tells whether there is to be another run. Signals are for
// nobody meanwhile: the next server would get them before it is ready for them.
func (p Process) rest(ctx context.Context, pause time.Duration, signals <-chan os.Signal) bool {
	over := time.After(pause)
	for {
		select {
		case <-over:
			return true
		case s := <-signals:
			p.Log.WithField("signal", s).Debug("no server to pass the signal on to")
		case <-ctx.Done():
			return false
		}
	}
}

// backoff paces restarts.
type backoff struct {
	min, max time.Duration
	limit    int
	row      int // restarts since the last long run
}

// next returns the pause after a run, and false when there are to be no more.
func (b *backoff) next(ran time.Duration) (time.Duration, bool) {
	if ran >= b.max {
		b.row = 0
	}
	if b.limit > 0 && b.row >= b.limit {
		return 0, false
	}
	pause := b.min
	for range b.row {
		if pause = min(2*pause, b.max); pause == b.max {
			break
		}
	}
	b.row++
	return pause, true
}

// child is a command that runs.
type child interface {
	pid() int
	// wait waits for the command's end; an EndedError unless that is exit code 0.
	wait() error
	signal(os.Signal) error
	signalGroup(syscall.Signal) error
	// groupEmpty tells whether no process of the group is left, when wait has
	// returned.
	groupEmpty() bool
}

// groupLook is the time between two looks at what is left of a process group.
const groupLook = 20 * time.Millisecond

// killedSoon is how long it may take to be empty when it was killed.
const killedSoon = time.Second

// attend stays with a run of the command until its process group has ended.
func (p *Process) attend(ctx context.Context, c child, signals <-chan os.Signal) error {
	life, endLife := context.WithCancel(ctx)
	draining, endDrain := context.WithCancel(context.WithoutCancel(ctx))
	var beside sync.WaitGroup
	if p.Life != nil {
		beside.Go(func() { p.Life(life) })
	}
	waited := make(chan error, 1)
	beside.Go(func() { waited <- c.wait() })
	defer beside.Wait()
	defer endLife()
	defer endDrain()

	stopping := ctx.Done()
	var drained chan struct{}
	var killing, looking <-chan time.Time
	var result error
	var killed time.Time
	stop := func() {
		p.tell(c.signalGroup(p.StopSignal))
		if killing == nil {
			killing = time.After(p.KillAfter)
		}
	}
	for {
		select {
		case s := <-signals:
			p.tell(c.signal(s))
		case <-stopping:
			stopping, drained = nil, make(chan struct{})
			endLife()
			beside.Go(func() {
				defer close(drained)
				if p.Drain != nil {
					p.Drain(draining)
				}
			})
		case <-drained:
			drained = nil
			p.Log.WithField("pid", c.pid()).Info("stopping server")
			stop()
		case <-killing:
			killing, result, killed = nil, ErrKilled, time.Now()
			p.Log.WithField("pid", c.pid()).Warn("killing server")
			p.tell(c.signalGroup(syscall.SIGKILL))
		case err := <-waited:
			endLife()
			endDrain()
			stopping, drained, signals = nil, nil, nil
			if result == nil {
				result = err
			}
			if c.groupEmpty() {
				return result
			}
			if killed.IsZero() {
				stop()
			}
			looking = time.After(groupLook)
		case <-looking:
			// Zombies that nobody reaps count as members for ever.
			if c.groupEmpty() || !killed.IsZero() && time.Since(killed) > killedSoon {
				return result
			}
			looking = time.After(groupLook)
		}
	}
}

// tell logs that a signal could not be sent, unless nobody is left to get it.
func (p *Process) tell(err error) {
	if err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH) {
		p.Log.WithError(err).Warn("signal the server")
	}
}
