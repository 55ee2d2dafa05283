package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
	"rserpool/cmd/internal/cli"
	"rserpool/enrp/table"
	"rserpool/registrar"
	"rserpool/registrar/admin"
	"rserpool/registrar/admin/client"
	"rserpool/registrar/handlespace"
)

// config is what every command of rspctl can be told.
type config struct {
	servers   []string
	timeout   time.Duration
	compat    cli.Compat
	format    cli.Format
	noHeaders bool
	// For the ENRP port of a registrar that wants certificates.
	cluster, ca, cert, key string
}

func declare(fs *pflag.FlagSet, c *config) {
	fs.StringArrayVarP(&c.servers, "server", "s", []string{"http://" + admin.DefaultAddress},
		"registrar: http://host:port for its admin API; sctp://host, tcp://host or auto://host,\nwith :port if it is not the usual one, for any registrar of RFC 5352 and 5353;\nrepeatable: the first that can be reached and can answer now is asked, by status all")
	fs.DurationVar(&c.timeout, "timeout", 10*time.Second, "give up after this time, of which each --server has its share; watch: for each look")
	cli.CompatVar(fs, &c.compat, "make of the registrar, of no effect on the admin API")
	cli.FormatVar(fs, &c.format)
	fs.StringVar(&c.ca, "tls-ca", "", "for the ENRP port of a registrar that wants certificates (see 'rspd ca'):\nfile with the certificates of the cluster's authority")
	fs.StringVar(&c.cert, "tls-cert", "", "file with a certificate of the cluster that names no registrar")
	fs.StringVar(&c.key, "tls-key", "", "file with its private key")
	fs.StringVar(&c.cluster, "cluster", registrar.DefaultCluster, "name of the cluster in certificates")
	fs.BoolVar(&c.noHeaders, "no-headers", false, "leave out the headers of tables")
}

func (c *config) validate() error {
	if c.timeout <= 0 {
		return fmt.Errorf("timeout: %v is not above zero", c.timeout)
	}
	if len(c.servers) == 0 {
		return errors.New("server: none given")
	}
	if (c.ca == "") != (c.cert == "") || (c.ca == "") != (c.key == "") {
		return errors.New("tls: --tls-ca, --tls-cert and --tls-key go together")
	}
	return nil
}

// program is rspctl with its networks.
type program struct {
	networks *transport.Networks
	settings *cli.Settings[config]
}

const long = `rspctl inspects and administers pools and registrars.

It asks one registrar. The registrar of this suite has an admin API for it, on
loopback, which is the default. Any other registrar, named as sctp://HOST or
tcp://HOST, is asked by the protocols of the RFCs:

  - pools, pool show, registrars, status and watch read its handle table by ENRP
    (port 9901 unless given). For that rspctl introduces itself as a registrar
    without elements, as registrars answer only those they know, and leaves as
    soon as it has the table. It answers nothing, so that it never votes in a
    takeover. The registrar may go on listing it as a peer for a while: about
    10 seconds (rsplib) to 66 seconds (RFC 5353's timers), and show it to the next
    one who asks. A takeover that begins meanwhile may have to wait for it to be
    forgotten.
  - resolve, register and deregister speak ASAP (port 3863 unless given).

Pool handles are octets. Those that are not graphic ASCII, and the backslash, are
written \xNN; other text stands for its octets.

Exit codes:

      0  done
      1  failed
      2  wrong command line or configuration
      3  no registrar can be reached that can answer now
      4  no such pool or element
      5  status: works, but not as it should
      6  timed out
    130  interrupted

Each flag can also be set by an environment variable, RSERPOOL_ and the flag in
capitals, and as a key in the configuration file.`

// newCommand returns the program's command line.
func newCommand(networks *transport.Networks) *cobra.Command {
	p := &program{networks: networks, settings: cli.NewSettings("rspctl", declare, (*config).validate)}
	root := &cobra.Command{
		Use:   "rspctl",
		Short: "Inspect and administer pools and registrars",
		Long:  long,
		RunE: p.settings.Run(func(cmd *cobra.Command, _ []string, _ config, _ *logrus.Logger) error {
			return cmd.Help()
		}),
	}
	p.settings.Bind(root)
	pool := &cobra.Command{Use: "pool", Short: "Look at one pool"}
	pool.AddCommand(p.poolShow())
	root.AddCommand(p.pools(), pool, p.resolve(), p.registrars(), p.register(), p.deregister(), p.watch(), p.status(), p.ring(), p.version())
	return root
}

// source is a registrar that can be asked: its admin API, or the protocols of
// the RFCs.
type source interface {
	Status(context.Context) (admin.Status, error)
	Pools(context.Context) ([]admin.Pool, error)
	Pool(context.Context, param.PoolHandle) (admin.Pool, error)
	Registrars(context.Context) ([]admin.RegistrarInfo, error)
	Resolve(ctx context.Context, h param.PoolHandle, items uint32) (admin.Resolution, error)
	Register(context.Context, param.PoolHandle, param.PoolElement) (admin.Element, error)
	Deregister(context.Context, param.PoolHandle, param.PEID) error
	// Watch calls f for each event until ctx ends or f returns an error.
	Watch(ctx context.Context, h param.PoolHandle, f func(admin.Event) error) error
	Close()
}

// adminSource is a registrar's admin API.
type adminSource struct{ *client.Client }

func (s adminSource) Register(ctx context.Context, h param.PoolHandle, e param.PoolElement) (admin.Element, error) {
	shown := showElement(h, e)
	return s.Client.Register(ctx, h, e.ID, admin.RegisterRequest{User: shown.User, ASAP: shown.ASAP, Policy: shown.Policy, Life: shown.Life})
}

// showElement shows an element that came from the wire or the command line as the
// admin API does, without what only its registrar knows.
func showElement(h param.PoolHandle, e param.PoolElement) admin.Element {
	return admin.ShowEntry(&handlespace.Entry{Handle: h, Element: e})
}

func (p *program) open(server string, c config) (source, error) {
	scheme, _, ok := strings.Cut(server, "://")
	if !ok || scheme == "http" || scheme == "https" {
		api, err := client.New(server, nil)
		if err != nil {
			return nil, cli.Exit(cli.Usage, fmt.Errorf("server: %w", err))
		}
		return adminSource{api}, nil
	}
	endpoint, err := transport.ParseEndpoint(server, transport.Auto, 0)
	if err != nil {
		return nil, cli.Exit(cli.Usage, fmt.Errorf("server: %w", err))
	}
	f := newForeign(p.networks, endpoint, c.compat == cli.CompatRsplib, c.timeout)
	if c.ca != "" {
		credentials, err := tcp.LoadCredentials(tcp.Files{CA: c.ca, Cert: c.cert, Key: c.key}, c.cluster)
		if err != nil {
			return nil, cli.Exit(cli.Usage, fmt.Errorf("tls: %w", err))
		}
		if named := credentials.Registrars(); len(named) > 0 {
			return nil, cli.Exitf(cli.Usage, "tls: %s is the certificate of registrar %s, in whose name rspctl must not speak: 'rspd ca issue NAME' without --id makes one for it", c.cert, named[0])
		}
		f.enrp = transport.NewNetworks(tcp.New(tcp.WithTLS(tcp.TLS{Credentials: credentials})))
	}
	return f, nil
}

// request is what a command asks of a registrar.
type request func(ctx context.Context, args []string, s source, out *cli.Printer) error

// run makes a command's run function of f, which asks a registrar within the
// time allowed, and another one if that is silent.
func (p *program) run(f request) func(*cobra.Command, []string) error { return p.runFor(f, false) }

// change is run for what must not be done twice: one registrar has all the time.
func (p *program) change(f request) func(*cobra.Command, []string) error { return p.runFor(f, true) }

func (p *program) runFor(f request, once bool) func(*cobra.Command, []string) error {
	return p.settings.Run(func(cmd *cobra.Command, args []string, c config, _ *logrus.Logger) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
		defer cancel()
		return p.ask(ctx, cmd, c, once, func(ctx context.Context, _ string, s source, out *cli.Printer) error {
			return f(ctx, args, s, out)
		})
	})
}

// ask opens the first registrar that can be reached for f and gives its errors
// their exit codes. Each has an equal share of the time that is left, unless f is to
// be done once.
func (p *program) ask(ctx context.Context, cmd *cobra.Command, c config, once bool, f func(ctx context.Context, server string, s source, out *cli.Printer) error) error {
	var err error
	for i, server := range c.servers {
		var s source
		if s, err = p.open(server, c); err != nil {
			return err
		}
		part, cancel := ctx, context.CancelFunc(func() {})
		if end, limited := ctx.Deadline(); limited && !once {
			part, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(len(c.servers)-i))
		}
		err = f(part, server, s, &cli.Printer{Out: cmd.OutOrStdout(), Format: c.format, NoHeaders: c.noHeaders})
		cancel()
		s.Close()
		silent := errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil
		if !elsewhere(err) && !silent {
			break
		}
	}
	var exit *cli.ExitError
	switch {
	case err == nil, errors.As(err, &exit):
		return err
	case cmd.Context().Err() != nil:
		return context.Cause(cmd.Context())
	case elsewhere(err):
		return cli.Exit(cli.Unreachable, err)
	case errors.Is(err, client.ErrNotFound), errors.Is(err, errNotFound):
		return cli.Exit(cli.NotFound, err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, table.ErrSilent):
		return cli.Exit(cli.TimedOut, err)
	}
	return err
}

// elsewhere reports whether another registrar may answer where this one did not.
func elsewhere(err error) bool {
	return errors.Is(err, client.ErrUnreachable) || errors.Is(err, errUnreachable) || errors.Is(err, client.ErrUnavailable)
}

// completePools offers the registrar's pool handles for the first argument.
func (p *program) completePools(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	c, err := p.settings.Load()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), min(c.timeout, 2*time.Second))
	defer cancel()
	var handles []string
	// Completion has no place for errors: without an answer nothing is offered.
	_ = p.ask(ctx, cmd, c, false, func(ctx context.Context, _ string, s source, _ *cli.Printer) error {
		pools, err := s.Pools(ctx)
		for _, pool := range pools {
			handles = append(handles, pool.Handle)
		}
		return err
	})
	return handles, cobra.ShellCompDirectiveNoFileComp
}

// handleArg reads a pool handle from the command line.
func handleArg(text string) (param.PoolHandle, error) {
	h, err := admin.UnescapeHandle(text)
	if err != nil {
		return "", cli.Exit(cli.Usage, err)
	}
	return h, nil
}
