// Rsppe puts a server that knows nothing of pools into one. It runs beside the
// server, registers the server's address, and takes it out of the pool while its
// checks fail. No data of the server passes through it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rserpool/asap/hunt"
	"rserpool/cmd/internal/cli"
	"rserpool/poolelement"
	"rserpool/poolelement/sidecar"
)

func main() { cli.Main(command()) }

func command() *cobra.Command {
	s := cli.NewSettings("rsppe", func(fs *pflag.FlagSet, c *settings) { c.declare(fs) }, (*settings).validate)
	root := &cobra.Command{
		Use:   "rsppe --pool POOL --service URL --registrar ADDRESS",
		Short: "Put a server into a pool without touching it",
		Long: `rsppe runs beside a server and puts it into a pool: it registers the server's
address with a registrar, keeps the registration alive, and deregisters while the
server's checks fail and at the end. No data of the server passes through it.

SIGTERM deregisters, then ends. SIGHUP reads the configuration again: policy and
registration life take effect at once, the rest at the next start.

Exit codes: 0 left the pool, 1 refused by the registrar for good, 2 usage or
configuration, 3 no registrar answers (with --give-up), 6 the registrar has not
confirmed the deregistration in time.`,
		Example: `  rsppe --pool echo --policy lu --service tcp://127.0.0.1:8080 --registrar 192.0.2.1
  rsppe --pool echo --service tcp://127.0.0.1:8080 --advertise 192.0.2.7:8080 \
        --check http://127.0.0.1:8080/health --load file:/run/server/load`,
		Args: cobra.NoArgs,
	}
	s.Bind(root)
	root.RunE = s.Run(func(cmd *cobra.Command, _ []string, c settings, log *logrus.Logger) error {
		hangups, stop := cli.Hangups()
		defer stop()
		return run(cmd.Context(), c, log, hangups, s.Load)
	})
	return root
}

// errFinal ends the program because the element will do nothing more by itself.
var errFinal = errors.New("the element is out of its pool for good")

// run looks after the service until ctx ends.
func run(ctx context.Context, c settings, log *logrus.Logger, hangups <-chan os.Signal, load func() (settings, error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	element, end, err := c.open(ctx, log, func(e poolelement.Event) {
		final := e.Type == poolelement.RegistrationFailed || e.Type == poolelement.RegistrationLost
		if final && e.Retry.IsZero() {
			cancel(fmt.Errorf("%w: %w", errFinal, e.Err))
		}
	})
	if err != nil {
		return err
	}
	defer func() {
		if err := end(); err != nil {
			log.WithError(err).Warn("close announcements")
		}
	}()
	car, err := c.sidecar()
	if err != nil {
		return err
	}
	car.Log = log
	reloading := make(chan struct{})
	go func() {
		defer close(reloading)
		reload(ctx, c, element, log, hangups, load)
	}()
	err = sidecar.Run(ctx, car, element)
	cancel(nil)
	<-reloading
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errFinal):
		return cli.Exit(code(cause), cause)
	case err != nil:
		return cli.Exit(code(err), err)
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

// reload applies new settings at each hangup, until ctx ends. Bad ones change
// nothing.
func reload(ctx context.Context, now settings, element *poolelement.Element, log *logrus.Logger, hangups <-chan os.Signal, load func() (settings, error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		}
		next, err := load()
		if err != nil {
			log.WithError(err).Error("configuration not reloaded, the old one stays")
			continue
		}
		config, _, err := next.element()
		if err != nil {
			log.WithError(err).Error("configuration not reloaded, the old one stays")
			continue
		}
		if next.Policy != now.Policy {
			element.Update(config.Policy)
		}
		if next.Life != now.Life {
			if err := element.SetLife(config.Life); err != nil {
				log.WithError(err).Error("registration life not changed")
			}
		}
		if !next.sameButPolicyAndLife(now) {
			log.Warn("configuration reloaded; what is neither policy nor life takes effect at the next start")
		} else {
			log.Info("configuration reloaded")
		}
		now = next
	}
}
