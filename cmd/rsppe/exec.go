package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"rserpool/cmd/internal/cli"
	"rserpool/poolelement/sidecar"
)

// executing are the settings of a server that rsppe runs.
type executing struct {
	Restart                string
	RestartMin, RestartMax time.Duration
	RestartLimit           int
	StopSignal             string
	PassSignals            []string
	KillAfter, CheckStart  time.Duration
}

func (c *executing) declare(fs *pflag.FlagSet) {
	fs.StringVar(&c.Restart, "restart", string(sidecar.OnFailure), "with a command, after which ends to start it again: on-failure, always or never")
	fs.DurationVar(&c.RestartMin, "restart-min", time.Second, "first pause before the command is started again; it doubles")
	fs.DurationVar(&c.RestartMax, "restart-max", time.Minute, "longest such pause; a run of this length makes the next pause the first again")
	fs.IntVar(&c.RestartLimit, "restart-limit", 0, "restarts in a row, without such a run between, before rsppe gives up; 0 sets no limit")
	fs.StringVar(&c.StopSignal, "stop-signal", "TERM", "signal that asks the command's process group to end")
	fs.DurationVar(&c.KillAfter, "kill-after", 10*time.Second, "time that the process group has for that before it is killed")
	fs.StringSliceVar(&c.PassSignals, "pass-signals", []string{"HUP", "USR1", "USR2"}, "signals that are passed on to the command; HUP makes rsppe reload as well")
	fs.DurationVar(&c.CheckStart, "check-start", 250*time.Millisecond, "with a command, time between checks after its start until the first that passes; failures before that do not count")
}

// parseSignal reads the name of a signal, with or without SIG.
func parseSignal(name string) (syscall.Signal, error) {
	upper := strings.ToUpper(name)
	if s := unix.SignalNum("SIG" + strings.TrimPrefix(upper, "SIG")); s != 0 {
		return s, nil
	}
	return 0, fmt.Errorf("%q is not a signal such as TERM", name)
}

// process returns the configuration of a command, without its surroundings.
func (c *executing) process(command []string) (sidecar.Process, error) {
	stop, err := parseSignal(c.StopSignal)
	if err != nil {
		err = fmt.Errorf("stop-signal: %w", err)
	}
	p := sidecar.Process{
		Command: command, Restart: sidecar.Restart(c.Restart), RestartMin: orAtOnce(c.RestartMin), RestartMax: c.RestartMax,
		RestartLimit: c.RestartLimit, StopSignal: stop, KillAfter: orAtOnce(c.KillAfter),
	}
	return p, err
}

// orAtOnce lets 0 stand for what it says, where 0 means the default in a library.
func orAtOnce(d time.Duration) time.Duration {
	if d == 0 {
		return 1
	}
	return d
}

// signals returns the signals to pass on.
func (c *executing) signals() ([]os.Signal, error) {
	var signals []os.Signal
	var errs []error
	for _, name := range c.PassSignals {
		s, err := parseSignal(name)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("pass-signals: %w", err))
		case slices.Contains([]syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGCHLD}, s):
			errs = append(errs, fmt.Errorf("pass-signals: %s can't be passed on", name))
		default:
			signals = append(signals, s)
		}
	}
	return signals, errors.Join(errs...)
}

// validate names everything that is wrong.
func (c *executing) validate() error {
	p, err := c.process([]string{"server"})
	_, signals := c.signals()
	errs := []error{err, signals, p.Validate()}
	if c.CheckStart < 0 {
		errs = append(errs, errors.New("check-start: too small"))
	}
	return errors.Join(errs...)
}

// commandOf returns the command after --, if there is one.
func commandOf(cmd *cobra.Command, args []string) ([]string, error) {
	switch dash := cmd.ArgsLenAtDash(); {
	case len(args) == 0 && dash < 0:
		return nil, nil
	case len(args) == 0:
		return nil, errors.New("no command after --")
	case dash != 0:
		return nil, fmt.Errorf("unknown argument %q; a server to run comes after --", args[0])
	}
	return args, nil
}

// execute runs the command, and the services while it runs, until ctx ends or the
// command is not to be started again. leave is called before it is stopped.
func (c *settings) execute(ctx context.Context, command []string, list members, leave func(context.Context), log *logrus.Logger, out streams) error {
	p, err := c.process(command)
	if err != nil {
		return cli.Exit(cli.Usage, err)
	}
	passed, err := c.signals()
	if err != nil {
		return cli.Exit(cli.Usage, err)
	}
	p.Env = slices.DeleteFunc(os.Environ(), forServiceManager)
	p.Stdout, p.Stderr, p.Log = out.stdout, out.stderr, log
	p.Life = func(life context.Context) {
		var watches sync.WaitGroup
		defer watches.Wait()
		for _, m := range list {
			watches.Go(func() {
				if err := sidecar.Watch(life, m.car, m.element); err != nil {
					log.WithError(err).Error("service not watched")
				}
			})
		}
	}
	p.Drain = leave
	signals := make(chan os.Signal, 16)
	if len(passed) > 0 { // none would mean all
		signal.Notify(signals, passed...)
		defer signal.Stop(signals)
	}
	err = p.Run(ctx, signals)
	var ended *sidecar.EndedError
	var start *sidecar.StartError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ended) && ended.Signal != 0:
		return cli.Exit(cli.ExitCode(128+int(ended.Signal)), err)
	case errors.As(err, &ended):
		return cli.Exit(cli.ExitCode(ended.Code), err)
	case errors.As(err, &start) && (errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist)):
		return cli.Exit(notFound, err)
	case errors.As(err, &start):
		return cli.Exit(notStarted, err)
	case errors.Is(err, sidecar.ErrKilled):
		return cli.Exit(cli.TimedOut, fmt.Errorf("the server was %w", err))
	}
	return err
}

// Exit codes as shells have them.
const (
	notStarted cli.ExitCode = 126
	notFound   cli.ExitCode = 127
)

// forServiceManager tells whether a variable of the environment is for rsppe alone.
func forServiceManager(variable string) bool {
	name, _, _ := strings.Cut(variable, "=")
	return slices.Contains([]string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}, name)
}
