// Rsppu uses a pool from the command line: it connects standard input and output
// to one of its elements, or sends requests one after the other, and goes on to
// another element when one fails. Or it gives the pool a local port, for clients
// that know nothing of pools.
package main

import (
	"errors"
	"fmt"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rserpool/asap/hunt"
	"rserpool/asap/transport"
	"rserpool/asap/transport/sctp"
	"rserpool/asap/transport/tcp"
	"rserpool/cmd/internal/cli"
	"rserpool/pooluser"
)

func main() { cli.Main(command(transport.NewNetworks(sctp.New(), tcp.New()))) }

func command(networks *transport.Networks) *cobra.Command {
	s := cli.NewSettings("rsppu", func(fs *pflag.FlagSet, c *settings) { c.declare(fs) },
		func(c *settings) error { return c.validate(networks) })
	root := &cobra.Command{
		Use:   "rsppu POOL --registrar ADDRESS",
		Short: "Use a pool: connect to it, send it requests, or give it a local port",
		Long: `rsppu connects standard input and output to an element of the pool, chosen by the
pool's policy. When the element fails, it connects to another and goes on; what
was on its way to the failed one may be lost.

With --request, --lines, --http or --exec it sends requests and waits for the
answer to each; a request that gets none goes to another element. With --repeat it
tells which element answered and, at the end, how long the longest gap was.

With --listen it gives the pool a local port, or a Unix socket, for clients in any
language: each connection is carried to an element. One that does not answer is
replaced before the client notices; when one is lost in mid-stream, the client's
connection is reset. Of several --listen the first leads to the first --pool, and so
on. SIGTERM stops listening and lets connections finish (--drain).

Exit codes: 0 all answered, or told to end with --listen, 1 some request was not answered, 2 usage or
configuration, 3 no registrar reachable, 4 unknown pool, 6 timed out, 130
interrupted.`,
		Example: `  rsppu echo --registrar 192.0.2.1
  rsppu web --registrar 192.0.2.1 --http /status
  rsppu echo --registrar 192.0.2.1 --request hello --repeat 100 --interval 10ms -o json
  rsppu web --registrar 192.0.2.1 --exec 'curl -sf http://$RSPPU_ADDRESS/'
  rsppu --listen 127.0.0.1:9000 --pool db --listen unix:/run/web --pool web --registrar 192.0.2.1`,
		Args: cobra.MaximumNArgs(1),
	}
	s.Bind(root)
	root.RunE = s.Run(func(cmd *cobra.Command, args []string, c settings, log *logrus.Logger) error {
		pools, err := c.pools(args)
		if err != nil {
			return cli.Exit(cli.Usage, err)
		}
		r, end, err := c.open(cmd.Context(), networks, log)
		if err != nil {
			return err
		}
		r.Start()
		defer func() {
			r.Stop()
			if err := end(); err != nil {
				log.WithError(err).Debug("end of announcements")
			}
		}()
		if len(c.Listen) > 0 {
			return c.forward(cmd.Context(), pools, r, log)
		}
		u := &user{settings: c, resolver: r, pool: pools[0], log: log, in: cmd.InOrStdin(), out: cmd.OutOrStdout()}
		return exit(u.run(cmd.Context()))
	})
	return root
}

// exit gives an error of the pool user its exit code, unless it has one.
func exit(err error) error {
	var coded *cli.ExitError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cli.ErrSignal), errors.As(err, &coded):
		return err
	case errors.Is(err, pooluser.ErrUnknownPool):
		return cli.Exit(cli.NotFound, err)
	case errors.Is(err, pooluser.ErrHandle):
		return cli.Exit(cli.Usage, err)
	case errors.Is(err, hunt.ErrNoRegistrar), errors.Is(err, hunt.ErrTimeout):
		return cli.Exit(cli.Unreachable, err)
	case errors.Is(err, errTimeout):
		return cli.Exit(cli.TimedOut, err)
	}
	return fmt.Errorf("%w", err)
}
