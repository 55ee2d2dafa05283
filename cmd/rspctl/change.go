package main

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/cmd/internal/cli"
	"rserpool/registrar/admin"
	"rserpool/selection"
)

// registration is an element as the flags of register describe it.
type registration struct {
	id, user, asap, policy string
	control                bool
	life                   time.Duration
}

func (p *program) register() *cobra.Command {
	var r registration
	cmd := &cobra.Command{
		Use: "register POOL --transport tcp://HOST:PORT", Short: "Put an element into a pool",
		Args: cobra.ExactArgs(1), ValidArgsFunction: p.completePools,
		Long: `Put an element into a pool, or replace the one with the same identifier.

By the admin API the element stays until its life ends or someone removes it; with
--asap the registrar asks there whether it is alive.

By ASAP (--server sctp://... or tcp://...) the registration comes from rspctl's own
association. Registrars take addresses of that association only, and most remove the
element soon after rspctl has left. rsppe is the program that keeps a server in a pool.`,
		RunE: p.change(func(ctx context.Context, args []string, s source, out *cli.Printer) error {
			h, err := handleArg(args[0])
			if err != nil {
				return err
			}
			element, err := r.element(ctx)
			if err != nil {
				return cli.Exit(cli.Usage, err)
			}
			stored, err := s.Register(ctx, h, element)
			if err != nil {
				return err
			}
			return out.Print(stored, elementColumns, [][]string{elementRow(stored)})
		}),
	}
	fs := cmd.Flags()
	fs.StringVarP(&r.user, "transport", "t", "", "where pool users reach the element: PROTOCOL://HOST[,HOST...]:PORT with sctp, tcp,\nudp, udplite or dccp; only sctp takes several hosts")
	fs.StringVarP(&r.policy, "policy", "p", "rr", "policy with its values: rr, rand, wrr:WEIGHT, wrand:WEIGHT, prio:PRIORITY, lu:LOAD,\nrlu:LOAD, lud:DEGRADATION:LOAD, plu:DEGRADATION:LOAD,\np2c:LOAD, hrw:WEIGHT, ewma and rsplib's (see rsppe --help); loads are fractions from 0 to 1")
	fs.DurationVar(&r.life, "life", 0, "registration life in whole seconds; 0 never ends")
	fs.StringVar(&r.id, "id", "", "the element's identifier (default: chosen at random)")
	fs.StringVar(&r.asap, "asap", "", "where registrars reach the element, sctp or tcp (default: nowhere, it is not probed)")
	fs.BoolVar(&r.control, "control", false, "the sctp transport carries ASAP control too")
	_ = cmd.MarkFlagRequired("transport")
	return cmd
}

var transportTypes = map[string]param.Type{
	"sctp": param.TypeSCTPTransport, "tcp": param.TypeTCPTransport, "udp": param.TypeUDPTransport,
	"udplite": param.TypeUDPLiteTransport, "dccp": param.TypeDCCPTransport,
}

// element makes a Pool Element of the flags; host names are looked up.
func (r *registration) element(ctx context.Context) (e param.PoolElement, err error) {
	if r.id != "" {
		id, err := admin.ParseID(r.id)
		if err != nil {
			return e, fmt.Errorf("id: %w", err)
		}
		e.ID = param.PEID(id)
	}
	if e.User, err = parseTransport(ctx, r.user); err != nil {
		return e, fmt.Errorf("transport: %w", err)
	}
	if r.control {
		if e.User.Type != param.TypeSCTPTransport {
			return e, fmt.Errorf("control: only an sctp transport carries control")
		}
		e.User.Use = param.DataAndControl
	}
	if r.asap != "" {
		if e.ASAP, err = parseTransport(ctx, r.asap); err != nil {
			return e, fmt.Errorf("asap: %w", err)
		}
		if t := e.ASAP.Type; t != param.TypeSCTPTransport && t != param.TypeTCPTransport {
			return e, fmt.Errorf("asap: must be sctp or tcp")
		}
	}
	if e.Policy, err = selection.Parse(r.policy); err != nil {
		return e, fmt.Errorf("policy: %w", err)
	}
	switch seconds := r.life / time.Second; {
	case r.life == 0:
		e.Life = param.InfiniteLife
	case r.life < 0 || r.life%time.Second != 0 || seconds > math.MaxInt32:
		return e, fmt.Errorf("life: %v is not a whole number of seconds from 1 to %d", r.life, math.MaxInt32)
	default:
		e.Life = param.Life(seconds)
	}
	return e, nil
}

// parseTransport reads PROTOCOL://HOST[,HOST...]:PORT.
func parseTransport(ctx context.Context, text string) (param.Transport, error) {
	protocol, rest, _ := strings.Cut(text, "://")
	kind, ok := transportTypes[protocol]
	if !ok {
		return param.Transport{}, fmt.Errorf("%q does not begin with sctp://, tcp://, udp://, udplite:// or dccp://", text)
	}
	endpoint, err := transport.ParseEndpoint(transport.SCTP+"://"+rest, "", 0)
	if err != nil {
		return param.Transport{}, err
	}
	if endpoint.Port == 0 {
		return param.Transport{}, fmt.Errorf("%q has no port", text)
	}
	found, err := endpoint.Resolve(ctx, nil)
	if err != nil {
		return param.Transport{}, err
	}
	t := param.Transport{Type: kind, Port: endpoint.Port}
	for _, a := range found {
		t.Addrs = append(t.Addrs, a.Addr())
	}
	if kind != param.TypeSCTPTransport {
		if len(endpoint.Hosts) > 1 {
			return param.Transport{}, fmt.Errorf("%q: %s takes one host", text, protocol)
		}
		t.Addrs = t.Addrs[:1:1]
	}
	for _, a := range t.Addrs {
		if a.IsUnspecified() || a.IsMulticast() {
			return param.Transport{}, fmt.Errorf("%q: %v is no one's address", text, a)
		}
	}
	return t, nil
}

func (p *program) deregister() *cobra.Command {
	return &cobra.Command{
		Use: "deregister POOL ELEMENT", Short: "Take an element out of a pool, dead or alive",
		Args: cobra.ExactArgs(2), ValidArgsFunction: p.completePools,
		Long: `Take an element out of a pool, dead or alive. An element that lives registers again
when it is due to, unless it is told not to.

By ASAP (--server sctp://... or tcp://...) a registrar may refuse, as RFC 5352 knows
no deregistration by others than the element, or allow it from the element's host.`,
		RunE: p.change(func(ctx context.Context, args []string, s source, out *cli.Printer) error {
			h, err := handleArg(args[0])
			if err != nil {
				return err
			}
			number, err := admin.ParseID(args[1])
			if err != nil {
				return cli.Exit(cli.Usage, err)
			}
			id := param.PEID(number)
			if err := s.Deregister(ctx, h, id); err != nil {
				return err
			}
			gone := struct {
				Handle string `json:"handle"`
				ID     string `json:"id"`
			}{admin.EscapeHandle(h), id.String()}
			return out.Print(gone, []cli.Column{{Name: "POOL"}, {Name: "DEREGISTERED"}}, [][]string{{gone.Handle, gone.ID}})
		}),
	}
}

func (p *program) watch() *cobra.Command {
	cmd := &cobra.Command{
		Use: "watch [POOL]", Short: "Print changes as they happen",
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: p.completePools,
		Long: `Print changes of all pools, or of one, as they happen, until interrupted. As JSON it
is one object per line. An event "snapshot" says that changes before it are not shown:
at the start, and when the registrar was away or rspctl too slow.

From a registrar without the admin API the handle table is read anew every --interval;
it lists rspctl as a peer most of that time, see 'rspctl --help'.`,
	}
	var interval time.Duration
	cmd.Flags().DurationVar(&interval, "interval", 15*time.Second, "time between looks at a registrar without the admin API")
	cmd.RunE = p.settings.Run(func(cmd *cobra.Command, args []string, c config, _ *logrus.Logger) error {
		var h param.PoolHandle
		if len(args) > 0 {
			var err error
			if h, err = handleArg(args[0]); err != nil {
				return err
			}
		}
		if interval <= 0 {
			return cli.Exitf(cli.Usage, "interval: %v is not above zero", interval)
		}
		return p.ask(cmd.Context(), cmd, c, true, func(ctx context.Context, _ string, s source, out *cli.Printer) error {
			if f, ok := s.(*foreign); ok {
				f.interval = interval
			}
			return s.Watch(ctx, h, func(e admin.Event) error { return out.Line(e, eventColumns, eventRow(e)) })
		})
	})
	return cmd
}

var eventColumns = []cli.Column{
	{Name: "TIME", Width: 24}, {Name: "EVENT", Width: 10}, {Name: "POOL", Width: 16}, {Name: "ELEMENT", Width: 10},
	{Name: "CAUSE", Width: 14}, {Name: "TRANSPORT", Width: 24, Wide: true}, {Name: "POLICY", Wide: true},
}

func eventRow(e admin.Event) []string {
	user, policy, pool, id := "", "", e.Handle, e.ID
	switch {
	case e.View != nil:
		pool, id = short(e.View.View), fmt.Sprintf("members: %d", len(e.View.Members))
	case e.Merge != nil:
		pool, id = short(e.Merge.View), fmt.Sprintf("differences: %d", e.Merge.Differences)
	}
	if e.Element != nil {
		user, policy = transportCell(e.Element.User), policyCell(e.Element.Policy)
	}
	return []string{moment(e.Time), e.Type, pool, id, e.Cause, user, policy}
}
