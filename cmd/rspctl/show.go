package main

import (
	"context"
	"fmt"
	"strconv"
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

func (p *program) pools() *cobra.Command {
	return &cobra.Command{
		Use: "pools", Short: "List all pools", Args: cobra.NoArgs,
		RunE: p.run(func(ctx context.Context, _ []string, s source, out *cli.Printer) error {
			pools, err := s.Pools(ctx)
			if err != nil {
				return err
			}
			rows := make([][]string, len(pools))
			for i, pool := range pools {
				rows[i] = []string{pool.Handle, pool.Policy, strconv.Itoa(pool.Elements), strconv.Itoa(pool.Suspects), pool.Transport, yes(pool.Control)}
			}
			return out.Print(notNil(pools), []cli.Column{{Name: "POOL"}, {Name: "POLICY"}, {Name: "ELEMENTS"}, {Name: "SUSPECT"},
				{Name: "TRANSPORT", Wide: true}, {Name: "CONTROL", Wide: true}}, rows)
		}),
	}
}

func (p *program) poolShow() *cobra.Command {
	return &cobra.Command{
		Use: "show POOL", Short: "Show a pool's elements", Args: cobra.ExactArgs(1), ValidArgsFunction: p.completePools,
		RunE: p.run(func(ctx context.Context, args []string, s source, out *cli.Printer) error {
			h, err := handleArg(args[0])
			if err != nil {
				return err
			}
			pool, err := s.Pool(ctx, h)
			if err != nil {
				return err
			}
			return out.Print(pool, elementColumns, elementRows(pool.Members))
		}),
	}
}

func (p *program) resolve() *cobra.Command {
	var items uint32
	cmd := &cobra.Command{
		Use: "resolve POOL", Short: "Resolve a pool handle as a pool user does", Args: cobra.ExactArgs(1), ValidArgsFunction: p.completePools,
		Long: `Resolve a pool handle as a pool user does and show the elements in the order of the
answer. Like any resolution this moves the pool's selection on.`,
		RunE: p.run(func(ctx context.Context, args []string, s source, out *cli.Printer) error {
			h, err := handleArg(args[0])
			if err != nil {
				return err
			}
			r, err := s.Resolve(ctx, h, items)
			if err != nil {
				return err
			}
			r.Elements = notNil(r.Elements)
			return out.Print(r, elementColumns, elementRows(r.Elements))
		}),
	}
	cmd.Flags().Uint32Var(&items, "items", 0, "how many elements to ask for; 0 leaves it to the registrar")
	return cmd
}

func (p *program) registrars() *cobra.Command {
	return &cobra.Command{
		Use: "registrars", Short: "List the registrars, the one asked first", Args: cobra.NoArgs,
		Long: `List the registrars that the one asked knows of, itself first. Those with the role
"member" are in its ring, those with the role "peer" are outside it and kept the same by
RFC 5353; others are known from announcements, or as home of elements, only.`,
		RunE: p.run(func(ctx context.Context, _ []string, s source, out *cli.Printer) error {
			registrars, err := s.Registrars(ctx)
			if err != nil {
				return err
			}
			rows := make([][]string, len(registrars))
			for i, r := range registrars {
				heard := ""
				if r.LastHeard != nil {
					heard = moment(*r.LastHeard)
				}
				rows[i] = []string{r.ID, yes(r.Self), strconv.Itoa(r.Elements), r.Role, endpointsCell(r.Endpoints), heard, r.Checksum}
			}
			return out.Print(notNil(registrars), []cli.Column{{Name: "REGISTRAR"}, {Name: "SELF"}, {Name: "ELEMENTS"}, {Name: "ROLE"},
				{Name: "ENDPOINTS"}, {Name: "HEARD", Wide: true}, {Name: "CHECKSUM", Wide: true}}, rows)
		}),
	}
}

func (p *program) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of rspctl", Args: cobra.NoArgs,
		RunE: p.settings.Run(func(cmd *cobra.Command, _ []string, c config, _ *logrus.Logger) error {
			v := struct {
				Version string `json:"version"`
			}{cli.Version()}
			out := &cli.Printer{Out: cmd.OutOrStdout(), Format: c.format, NoHeaders: true}
			return out.Print(v, []cli.Column{{Name: "VERSION"}}, [][]string{{v.Version}})
		}),
	}
}

var elementColumns = []cli.Column{
	{Name: "ELEMENT"}, {Name: "STATE"}, {Name: "HOME"}, {Name: "TRANSPORT"}, {Name: "POLICY"},
	{Name: "LIFE", Wide: true}, {Name: "EXPIRES", Wide: true}, {Name: "REPORTS", Wide: true}, {Name: "REGISTERED", Wide: true}, {Name: "ASAP", Wide: true},
}

func elementRows(elements []admin.Element) [][]string {
	rows := make([][]string, len(elements))
	for i, e := range elements {
		rows[i] = elementRow(e)
	}
	return rows
}

func elementRow(e admin.Element) []string {
	state, expires, asap := e.State, "", ""
	if e.Cause != "" {
		state += " (" + e.Cause + ")"
	}
	if e.Expires != nil {
		expires = moment(*e.Expires)
	}
	if e.ASAP != nil {
		asap = transportCell(*e.ASAP)
	}
	return []string{e.ID, state, e.Home, transportCell(e.User), policyCell(e.Policy),
		lifeCell(e.Life), expires, strconv.Itoa(e.Reports), moment(e.Registered), asap}
}

func transportCell(t admin.Transport) string {
	if t.Protocol == "opaque" {
		return "opaque " + t.Opaque
	}
	cell := transport.Endpoint{Network: t.Protocol, Hosts: t.Addresses, Port: t.Port}.String()
	if t.Control {
		cell += " +control"
	}
	return cell
}

func policyCell(p admin.Policy) string {
	number, err := strconv.ParseUint(p.Type, 0, 32)
	if err != nil {
		return p.Name
	}
	return selection.Format(param.Policy{Type: param.PolicyType(number), Weight: p.Weight, Priority: p.Priority, Load: p.Load, Degradation: p.Degradation, Penalty: p.Penalty, Distance: p.Distance, Misfit: p.Data != ""})
}

func lifeCell(seconds float64) string {
	if seconds < 0 {
		return "infinite"
	}
	return time.Duration(seconds * float64(time.Second)).String()
}

func endpointsCell(endpoints []admin.Endpoint) string {
	cells := make([]string, len(endpoints))
	for i, e := range endpoints {
		cells[i] = fmt.Sprintf("%s %s://%s", e.Protocol, e.Network, strings.Join(e.Addrs, ","))
	}
	return strings.Join(cells, "; ")
}

// moment shows a time; zero stands for one that is not known.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// notNil makes an empty list of nil, which JSON would show as null.
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
