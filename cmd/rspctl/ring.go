package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rserpool/cmd/internal/cli"
	"rserpool/registrar/admin"
)

// ringSource is a registrar that can tell about its ring: by the admin API.
type ringSource interface {
	Ring(context.Context) (admin.Ring, error)
	RingMerges(context.Context) ([]admin.RingMerge, error)
}

func ringOf(s source) (ringSource, error) {
	if r, ok := s.(ringSource); ok {
		return r, nil
	}
	return nil, cli.Exitf(cli.Usage, "server: the protocols of the RFCs know no ring: ask the admin API, http://host:port")
}

func (p *program) ring() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ring", Short: "Show the ring of registrars", Args: cobra.NoArgs,
		Long: `Show the ring as the registrar asked sees it: the view and its members, the token, what
waits for it, and what changed last and why.

A member is 'connected', or 'away' when there is no connection at the moment. Addresses
where a configured peer should be and nobody answers are missing, and -o wide tells why;
members outside the view answer but are not in it (yet); a clash is one that lives under
the identifier of a member. CLOCK is how much a member's clock is ahead of (+) or
behind (-) that of the registrar asked; '!' marks more than its --ring-max-skew.

An exchange brings members that may know different things to the same state; until its
end nothing is acknowledged. Held answers are acknowledgements that wait for the members
that --ack min-members=N of rspd wants.`,
		RunE: p.run(func(ctx context.Context, _ []string, s source, out *cli.Printer) error {
			rs, err := ringOf(s)
			if err != nil {
				return err
			}
			r, err := rs.Ring(ctx)
			if err != nil {
				return err
			}
			return printRing(r, out)
		}),
	}
	cmd.AddCommand(p.ringMerges())
	return cmd
}

func (p *program) ringMerges() *cobra.Command {
	return &cobra.Command{
		Use: "merges", Short: "Show what differed when sides of the ring met", Args: cobra.NoArgs,
		Long: `Show the latest merges of the ring, newest first: which sides met, what they knew
differently, and what was kept. A merge without differences has one line.`,
		RunE: p.run(func(ctx context.Context, _ []string, s source, out *cli.Printer) error {
			rs, err := ringOf(s)
			if err != nil {
				return err
			}
			merges, err := rs.RingMerges(ctx)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, m := range merges {
				head := []string{moment(m.Time), short(m.View), strconv.Itoa(len(m.Sides)), strconv.Itoa(m.Differences)}
				if len(m.Entries) == 0 {
					rows = append(rows, append(head, "", "", "", "", "", ""))
				}
				for _, e := range m.Entries {
					rows = append(rows, append(head, e.Handle, e.ID, e.Result, e.KeptHome, e.LostHome, e.Kept))
					head = []string{"", "", "", ""}
				}
				if hidden := m.Differences - len(m.Entries); hidden > 0 && len(m.Entries) > 0 {
					rows = append(rows, []string{"", "", "", "", fmt.Sprintf("(%d more)", hidden), "", "", "", "", ""})
				}
			}
			return out.Print(notNil(merges), []cli.Column{{Name: "TIME"}, {Name: "VIEW"}, {Name: "SIDES"}, {Name: "DIFFERENCES"},
				{Name: "POOL"}, {Name: "ELEMENT"}, {Name: "RESULT"}, {Name: "KEPT HOME"}, {Name: "LOST HOME"}, {Name: "KEPT", Wide: true}}, rows)
		}),
	}
}

// short writes a view or member without incarnations, which say little to people.
func short(name string) string {
	name, _, _ = strings.Cut(name, "/")
	return name
}

func shorts(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = short(n)
	}
	return strings.Join(out, " ")
}

func printRing(r admin.Ring, out *cli.Printer) error {
	if out.Format == cli.JSON || out.Format == cli.YAML {
		return out.Print(r, nil, nil)
	}
	rows := [][]string{
		{"cluster", r.Cluster}, {"view", short(r.View)}, {"cause", r.Cause}, {"coordinator", r.Coordinator}, {"state", r.State},
		{"synced", yes(r.Synced)}, {"whole", yes(r.Whole)}, {"acknowledged", r.Ack},
		{"rotation", seconds(r.Rotation)}, {"hop", number(r.Hop)},
		{"entries", number(r.Counters.Entries)}, {"stable lag", number(r.StableLag)},
		{"held answers", strconv.Itoa(r.HeldAnswers)},
		{"backlog", fmt.Sprintf("%d (%d octets)", r.Backlog, r.BacklogOctets)},
		{"tokens resent", number(r.Counters.Resent)}, {"tokens lost", number(sum(r.Counters.TokenLost))},
		{"calls refused", number(sum(r.Counters.Refused))}, {"connections refused", number(sum(r.Counters.Connections))},
		{"messages dropped", number(sum(r.Counters.Dropped))},
		{"merges held off", number(r.Counters.HeldOff)},
		{"late hops", number(r.Counters.LateHops)},
		{"stalls", number(r.Counters.Stalls)},
	}
	if r.Wanted > 0 {
		rows = append(rows, []string{"members wanted", strconv.Itoa(r.Wanted)})
	}
	if r.Exchange != nil {
		rows = append(rows, []string{"exchange", exchange(r.Exchange, time.Now())})
	}
	for _, l := range r.Locks {
		rows = append(rows, []string{"lock " + l.Name, strings.TrimSpace(short(l.Holder) + " " + shorts(l.Queue))})
	}
	if err := out.Print(nil, []cli.Column{{Name: "ITEM"}, {Name: "VALUE"}}, rows); err != nil {
		return err
	}
	rows = nil
	member := func(m admin.RingMember, place string) {
		since := ""
		if m.Since != nil {
			since = moment(*m.Since)
		}
		rows = append(rows, []string{m.ID, place, m.State, clock(m.Clock, r.MaxSkew), m.Contact, since, number(m.Sent), number(m.Received), number(m.Dropped), m.Error})
	}
	for _, m := range r.Members {
		member(m, "in view")
	}
	for _, m := range r.Outside {
		place := "outside"
		switch {
		case m.Clash:
			place = "clash"
		case m.HeldOff != nil:
			place = "held off"
		}
		member(m, place)
	}
	for _, addr := range r.Missing {
		rows = append(rows, []string{"", "missing", "", "", addr, "", "", "", "", r.MissingErrors[addr]})
	}
	if err := blank(out); err != nil {
		return err
	}
	if err := out.Print(nil, []cli.Column{{Name: "MEMBER"}, {Name: "PLACE"}, {Name: "STATE"}, {Name: "CLOCK"}, {Name: "CONTACT"}, {Name: "SINCE", Wide: true},
		{Name: "SENT", Wide: true}, {Name: "RECEIVED", Wide: true}, {Name: "DROPPED", Wide: true}, {Name: "ERROR", Wide: true}}, rows); err != nil {
		return err
	}
	rows = nil
	for _, c := range r.Changes {
		rows = append(rows, []string{moment(c.Time), short(c.View), c.Cause, shorts(c.Members), shorts(c.Joined), shorts(c.Left)})
	}
	if err := blank(out); err != nil {
		return err
	}
	return out.Print(nil, []cli.Column{{Name: "CHANGED"}, {Name: "VIEW"}, {Name: "CAUSE"}, {Name: "MEMBERS", Wide: true}, {Name: "JOINED"}, {Name: "LEFT"}}, rows)
}

func blank(out *cli.Printer) error {
	_, err := io.WriteString(out.Out, "\n")
	return err
}

// exchange says with whom and since when.
func exchange(x *admin.RingExchange, now time.Time) string {
	with := "waiting for other members"
	if len(x.With) > 0 {
		with = "with " + strings.Join(x.With, " ")
	}
	text := fmt.Sprintf("%s, since %s (%s)", with, moment(x.Since), now.Sub(x.Since).Round(100*time.Millisecond))
	if len(x.Awaited) > 0 {
		text += ", not done: " + strings.Join(x.Awaited, " ")
	}
	if x.Commands > 0 {
		text += fmt.Sprintf(", %d commands wait", x.Commands)
	}
	return text
}

// clock says how much a clock differs, no finer than that is known.
func clock(c *admin.RingClock, bound float64) string {
	if c == nil {
		return ""
	}
	ahead := time.Duration(c.Ahead * float64(time.Second))
	unit := time.Microsecond
	for unit < time.Second && unit.Seconds() < c.Error {
		unit *= 10
	}
	text := ahead.Round(unit).String()
	if ahead >= 0 {
		text = "+" + text
	}
	if math.Abs(c.Ahead)-c.Error > bound {
		text += " !"
	}
	return text
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Microsecond).String()
}

func sum(counts map[string]uint64) uint64 {
	var total uint64
	for _, n := range counts {
		total += n
	}
	return total
}
