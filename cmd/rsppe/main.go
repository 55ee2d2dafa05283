// Rsppe puts servers that know nothing of pools into them. It runs beside the
// servers, or runs one itself, registers their addresses, and takes them out of their
// pools while their checks fail. No data of the servers passes through it.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rserpool/asap/hunt"
	"rserpool/cmd/internal/cli"
	"rserpool/cmd/internal/systemd"
	"rserpool/poolelement"
)

func main() { cli.Main(command()) }

func command() *cobra.Command {
	s := cli.NewSettings("rsppe", func(fs *pflag.FlagSet, c *settings) { c.declare(fs) }, (*settings).validate)
	sections(s)
	root := &cobra.Command{
		Use:   "rsppe --pool POOL --service URL --registrar ADDRESS [flags] [-- COMMAND [ARGUMENT...]]",
		Short: "Put servers into pools without touching them",
		Long: `rsppe runs beside a server and puts it into a pool: it registers the server's
address with a registrar, keeps the registration alive, and deregisters while the
server's checks fail and at the end. No data of the server passes through it.

A file may list several services (key services: mappings with the keys pool, service,
policy, life, id, advertise, listen, control-channel, check-... and load-...). What a
service leaves out it takes from the flags.

With a command after -- it runs the server: registers it when its checks pass,
deregisters when it ends, and starts it again (--restart). Output, --pass-signals and
exit code are passed on. The server has a process group of its own and no standard
input; NOTIFY_SOCKET is not in its environment. On Linux it gets SIGTERM if rsppe dies.

SIGTERM deregisters, waits for the clients' connections to end (--drain), stops the
command, then ends; a second one ends at once. SIGHUP reads the configuration again:
policy and registration life take effect at once, the rest at the next start. Under
systemd, rsppe is a service of Type=notify: ready at once or, with a command, when its
checks have passed, whether or not a registrar answers; WatchdogSec= is obeyed.

Exit codes: 0 left the pool, 1 refused by the registrar for good, 2 usage or
configuration, 3 no registrar answers (with --give-up), 6 the registrar has not
confirmed the deregistration in time, or the command had to be killed. When the
command ends by itself and is not started again: its own exit code, or 128 and the
number of the signal that ended it; 126 it can't be started, 127 it is not there.`,
		Example: `  rsppe --pool echo --policy lu --service tcp://127.0.0.1:8080 --registrar 192.0.2.1
  rsppe --pool echo --service tcp://127.0.0.1:8080 --advertise 192.0.2.7:8080 \
        --check http://127.0.0.1:8080/health --load file:/run/server/load
  rsppe --pool web --service tcp://127.0.0.1:8000 --registrar 192.0.2.1 -- python3 -m http.server 8000`,
		Args: cobra.ArbitraryArgs,
	}
	s.Bind(root)
	root.RunE = s.Run(func(cmd *cobra.Command, args []string, c settings, log *logrus.Logger) error {
		command, err := commandOf(cmd, args)
		if err != nil {
			return cli.Exit(cli.Usage, err)
		}
		hangups, stop := cli.Hangups()
		defer stop()
		j := job{log: log, hangups: hangups, load: s.Load, command: command, streams: streams{cmd.OutOrStdout(), cmd.ErrOrStderr()}}
		return j.run(cmd.Context(), c)
	})
	return root
}

// job is one run of the program.
type job struct {
	log     *logrus.Logger
	hangups <-chan os.Signal
	load    func() (settings, error)
	command []string // none: the servers are run by others
	streams streams
}

// streams are where a command's output goes.
type streams struct{ stdout, stderr io.Writer }

// run looks after the services, and runs the command, until ctx ends or nothing is
// left to do.
func (j *job) run(ctx context.Context, c settings) error {
	drain, err := c.drain(j.command != nil)
	if err != nil {
		return cli.Exit(cli.Usage, err)
	}
	list, err := c.open(ctx, j.command != nil, j.log)
	if err != nil {
		return err
	}
	defer func() {
		if err := list.close(); err != nil {
			j.log.WithError(err).Warn("close announcements")
		}
	}()
	ctx, end := context.WithCancel(ctx)
	alive, died := context.WithCancel(context.WithoutCancel(ctx))
	var beside sync.WaitGroup
	defer beside.Wait()
	defer died()
	defer end()
	beats := make(chan struct{})
	beside.Go(func() { j.serve(ctx, c, list, beats) })
	beside.Go(func() {
		systemd.Watchdog(alive, j.log, func() {
			select {
			case <-beats:
			case <-ctx.Done():
			}
		})
	})
	told := context.AfterFunc(ctx, func() {
		systemd.Notify(j.log, systemd.Stopping+"\n"+systemd.Extend(c.StopTimeout+drain+c.KillAfter+5*time.Second))
	})
	defer told()
	beside.Go(func() {
		if j.command != nil {
			list.awaitUp(ctx)
		}
		if ctx.Err() == nil {
			systemd.Notify(j.log, systemd.Ready)
		}
	})

	left := make(chan struct{}) // all have left their pools
	var leaving error
	beside.Go(func() {
		defer close(left)
		leaving = list.run(ctx, j.command != nil, j.log)
		end() // where they did so by themselves
	})
	leave := func(ctx context.Context) {
		<-left
		list.drain(ctx, drain, j.log)
	}
	if j.command != nil {
		err = c.execute(ctx, j.command, list, leave, j.log, j.streams)
		end()
		<-left
	} else {
		leave(context.WithoutCancel(ctx))
	}
	switch {
	case err != nil:
		return err
	case leaving != nil:
		return cli.Exit(code(leaving), leaving)
	}
	return nil
}

func code(err error) cli.ExitCode {
	switch {
	case errors.Is(err, poolelement.ErrStopTimeout):
		return cli.TimedOut
	case errors.Is(err, hunt.ErrNoRegistrar), errors.Is(err, hunt.ErrTimeout):
		return cli.Unreachable
	}
	return cli.Failed
}

// serve applies new settings at each hangup, until ctx ends; bad ones change nothing.
// What differs from those that the program was started with waits for a restart.
// beats shows that it does not hang.
func (j *job) serve(ctx context.Context, started settings, list members, beats chan<- struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case beats <- struct{}{}:
			continue
		case <-j.hangups:
		}
		systemd.Notify(j.log, systemd.Reloading)
		if next, err := j.load(); err != nil {
			j.log.WithError(err).Error("configuration not reloaded, the old one stays")
		} else {
			list.reload(next, j.log)
			if next.sameButPolicyAndLife(started) {
				j.log.Info("configuration reloaded")
			} else {
				j.log.Warn("configuration reloaded; what is neither policy nor life takes effect at the next start")
			}
		}
		systemd.Notify(j.log, systemd.Ready)
	}
}
