// Rspd is the registrar daemon: it keeps the handlespace, watches the pool
// elements, and answers pool users.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/cmd/internal/cli"
	"rserpool/cmd/internal/systemd"
	"rserpool/registrar"
	"rserpool/registrar/admin"
)

func main() { cli.Main(command()) }

func command() *cobra.Command {
	s := cli.NewSettings("rspd", func(fs *pflag.FlagSet, c *settings) { c.declare(fs) }, (*settings).validate)
	root := &cobra.Command{
		Use:   "rspd",
		Short: "RSerPool registrar",
		Long: `rspd is a registrar: pool elements register with it, it watches them, and pool
users ask it for the elements of a pool (RFC 5352).

SIGTERM leaves politely, a second one at once. SIGHUP reads the configuration
and the certificates again; if it is bad, or changes what only a restart can change,
the old one stays.

With --ring-listen it is a member of a ring: registrars with one handlespace, where each
has all pools and elements, and any may die. Members know each other by certificates
('rspd ca'); without them, the ports of registrars are on loopback only.

Exit codes: 0 left as told, 1 failed, 2 usage or configuration.`,
		Example: `  rspd
  rspd --listen tcp://127.0.0.1:3863 --enrp-listen off --timers fast
  rspd --listen sctp://192.0.2.1,198.51.100.1 --compat rsplib --announce auto
  rspd --ring-listen tcp://192.0.2.1 --peer tcp://192.0.2.2 --peer tcp://192.0.2.3 --id 1 \
       --tls-ca ca.crt --tls-cert one.crt --tls-key one.key`,
		Args: cobra.NoArgs,
	}
	s.BindAlone(root)
	root.AddCommand(caCommand())
	root.RunE = s.Run(func(cmd *cobra.Command, _ []string, c settings, log *logrus.Logger) error {
		hangups, stop := cli.Hangups()
		defer stop()
		return run(cmd.Context(), c, log, hangups, s.Load)
	})
	return root
}

// ballast is how many octets the garbage collector takes to be in use besides those
// that are, so that it does not run dozens of times per second while a busy registrar
// knows few elements. Nothing is ever written there, so it takes no memory itself.
const ballast = 32 << 20

// run serves until ctx ends.
func run(ctx context.Context, c settings, log *logrus.Logger, hangups <-chan os.Signal, load func() (settings, error)) error {
	spare := make([]byte, ballast)
	defer runtime.KeepAlive(spare)
	l, err := c.cluster.links(log)
	if err != nil {
		return cli.Exit(cli.Usage, err)
	}
	wishes := make(chan chan error)
	serves, quit := context.WithCancel(context.WithoutCancel(ctx))
	defer quit()
	reload := func() error {
		result := make(chan error, 1)
		select {
		case wishes <- result:
			return <-result
		case <-serves.Done():
			return fmt.Errorf("%w: leaving", admin.ErrUnavailable)
		}
	}
	c.reload = reload
	cfg, err := c.build(l, log, true)
	if err != nil {
		return err
	}
	r, err := registrar.New(cfg)
	if err != nil {
		return cli.Exit(cli.Usage, err)
	}
	began := time.Now()
	own := log.WithField("registrar", r.ID().String())
	own.WithFields(logrus.Fields{"version": cli.Version(), "compat": string(c.Compat)}).Info("starting")
	for _, name := range []string{transport.SCTP, transport.TCP} {
		if _, err := l.plain.Get(name); err != nil {
			own.WithError(err).WithField("network", name).Info("transport not available")
		}
	}
	c.cluster.announceSafety(l, cfg, own)
	if l.credentials != nil {
		l.credentials.Check = func(named []param.RegistrarID) error { return transport.CheckRegistrar(named, r.ID()) }
	}
	if err := r.Start(ctx); err != nil {
		return err
	}
	serving := r.Serving()
	leave := func() error {
		quit()
		systemd.Notify(log, systemd.Stopping)
		began := time.Now()
		err := r.Stop(context.WithoutCancel(ctx))
		own.WithField("after", time.Since(began).Round(time.Millisecond).String()).Info("stopped")
		return err
	}

	again := func() error {
		systemd.Notify(log, systemd.Reloading)
		defer systemd.Notify(log, systemd.Ready)
		next, err := load()
		if err == nil {
			err = c.cluster.reload(l, next.cluster)
		}
		if err == nil {
			next.reload = reload
			var cfg registrar.Config
			if cfg, err = next.build(l, log, true); err == nil {
				err = r.Reload(cfg)
			}
		}
		if err != nil {
			own.WithError(err).Error("configuration not taken, the old one stays")
			return err
		}
		l.tell(own, "configuration read again")
		return nil
	}
	for {
		select {
		case <-serving:
			serving = nil
			own.WithField("after", time.Since(began).Round(time.Millisecond).String()).Info("serving")
			systemd.Notify(log, systemd.Ready)
		case <-hangups:
			// The error was logged; the old configuration goes on.
			_ = again()
		case result := <-wishes:
			result <- again()
		case trouble := <-r.Failed():
			return errors.Join(trouble, leave())
		case <-ctx.Done():
			own.Info("leaving")
			return leave()
		}
	}
}
