package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"rserpool/asap/transport"
	"rserpool/cmd/internal/cli"
	"rserpool/registrar/admin"
)

// report is what status says: of the first registrar asked all, of the others what
// must agree.
type report struct {
	admin.Status
	Others   []other  `json:"others,omitempty"`
	Problems []string `json:"problems,omitempty"`
}

// other is another registrar that was asked.
type other struct {
	Server string `json:"server"`
	// Error is why it did not answer.
	Error     string `json:"error,omitempty"`
	Registrar string `json:"registrar,omitempty"`
	Ready     bool   `json:"ready"`
	Pools     int    `json:"pools"`
	Elements  int    `json:"elements"`
	Digest    string `json:"digest,omitempty"`
	View      string `json:"view,omitempty"`

	settings map[string]string // of a member of a ring
}

const (
	// settleTime is for how long registrars may disagree, for they are not
	// asked at the same moment, and comparePause how often they are asked.
	settleTime   = 2 * time.Second
	comparePause = 200 * time.Millisecond
	// guessPatience bounds asking a member where its admin API may not be.
	guessPatience = time.Second
)

func (p *program) status() *cobra.Command {
	var quiet bool
	var settle time.Duration
	cmd := &cobra.Command{
		Use: "status", Short: "Say how the registrars are; exits 5 if not well", Args: cobra.NoArgs,
		Long: `Say how the registrar is and, if there are more, whether they agree: those that further
--server name, and the members of its ring that answer at their addresses by the port
of its admin API (which they do if it is not on loopback: --admin-allow-remote of rspd).

The exit code is 5, so that it serves as a health check,
  - if the registrar is not ready or marks elements as suspect,
  - if its ring is not whole: a configured peer is missing, there are fewer members than
    --ring-size or --ack min-members=N of rspd say, its members do not know the same yet
    (an exchange runs), acknowledgements wait for members, or another registrar that lives
    uses the identifier of a member,
  - if a registrar named by --server does not answer,
  - if those asked are in different views of one ring, have other values of settings that
    decide what becomes of an element (limits, removals), or know different elements, and
    still do after the time of --settle.`,
	}
	cmd.Flags().DurationVar(&settle, "settle", settleTime, "time for which registrars may disagree, while updates are under way")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print nothing, for the exit code alone")
	cmd.RunE = p.settings.Run(func(cmd *cobra.Command, _ []string, c config, _ *logrus.Logger) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
		defer cancel()
		return p.ask(ctx, cmd, c, false, func(ctx context.Context, server string, s source, out *cli.Printer) error {
			further := slices.DeleteFunc(slices.Clone(c.servers), func(other string) bool { return other == server })
			r, err := p.examine(ctx, c, s, further, time.Now().Add(settle))
			if err != nil {
				return err
			}
			if !quiet {
				if err := printReport(r, out); err != nil {
					return err
				}
			}
			if len(r.Problems) > 0 {
				return cli.Exit(cli.Degraded, nil)
			}
			return nil
		})
	})
	return cmd
}

// examine asks the first registrar and further ones until they agree, or time is
// over.
func (p *program) examine(ctx context.Context, c config, first source, further []string, until time.Time) (report, error) {
	for {
		r, disagree, err := p.compare(ctx, c, first, further)
		if err != nil || len(disagree) == 0 {
			return r, err
		}
		r.Problems = append(r.Problems, disagree...)
		if time.Now().After(until) {
			return r, nil
		}
		select {
		case <-time.After(comparePause):
		case <-ctx.Done():
			return r, nil
		}
	}
}

// compare asks the registrars once. Those of its findings that may be due to not
// asking all at the same moment are in disagree.
func (p *program) compare(ctx context.Context, c config, first source, further []string) (r report, disagree []string, err error) {
	if r.Status, err = first.Status(ctx); err != nil {
		return r, nil, err
	}
	problem := func(format string, args ...any) { r.Problems = append(r.Problems, fmt.Sprintf(format, args...)) }
	if !r.Ready {
		problem("%s is not ready", r.Registrar)
	}
	if r.Suspects > 0 {
		problem("elements marked suspect: %d", r.Suspects)
	}
	if r.Ring != nil {
		for _, text := range ringProblems(r.Ring) {
			problem("%s", text)
		}
	}
	base := known{r.Registrar, summary(r.Status), homes(ctx, first)}
	asked := []string{r.Registrar}
	for _, a := range p.askOthers(ctx, c, first, further, r.Ring) {
		switch {
		case a.other.Error != "" && a.guessed:
			continue // its admin API is on loopback, as it should
		case a.other.Error != "":
			problem("%s does not answer: %s", a.other.Server, a.other.Error)
		case slices.Contains(asked, a.other.Registrar):
			continue
		default:
			asked = append(asked, a.other.Registrar)
			disagree = append(disagree, base.compare(known{a.other.Registrar, a.other, a.homes})...)
		}
		r.Others = append(r.Others, a.other)
	}
	return r, disagree, nil
}

// ringProblems says why a ring is not as it should be.
func ringProblems(r *admin.RingSummary) (problems []string) {
	problem := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if r.Error != "" {
		return []string{"the ring does not answer: " + r.Error}
	}
	switch {
	case r.Exchange != nil:
		problem("the members of the ring do not know the same yet: exchange %s", exchange(r.Exchange, time.Now()))
	case !r.Synced:
		problem("the members of the ring do not know the same yet")
	}
	if len(r.Missing) > 0 {
		problem("the ring is not whole, missing: %s", strings.Join(r.Missing, ", "))
	}
	if len(r.Clashes) > 0 {
		problem("other registrars use the identifier of a member: %s", strings.Join(r.Clashes, ", "))
	}
	if len(r.Members) < r.Wanted {
		problem("the ring is not whole, it has %d members of %d", len(r.Members), r.Wanted)
	}
	if r.HeldAnswers > 0 {
		problem("answers wait for members of the ring: %d", r.HeldAnswers)
	}
	if !r.Whole && len(problems) == 0 {
		problem("the ring is not whole")
	}
	return problems
}

// known is what a registrar knows.
type known struct {
	name  string
	other other
	homes map[string]string // checksums, by home; nil: not known
}

func (a known) compare(b known) (differences []string) {
	differ := func(what, x, y string) {
		if x != "" && y != "" && x != y {
			differences = append(differences, fmt.Sprintf("%s and %s disagree: %s %s and %s", a.name, b.name, what, x, y))
		}
	}
	differ("view", a.other.View, b.other.View)
	differ("digest", a.other.Digest, b.other.Digest)
	differ("elements", strconv.Itoa(a.other.Elements), strconv.Itoa(b.other.Elements))
	for name, value := range a.other.settings {
		differ("--"+name+", which members of a ring need alike,", value, b.other.settings[name])
	}
	if a.homes == nil || b.homes == nil {
		slices.Sort(differences)
		return differences
	}
	ids := make(map[string]bool)
	for _, homes := range []map[string]string{a.homes, b.homes} {
		for id := range homes {
			ids[id] = true
		}
	}
	for id := range ids {
		differ("checksum of "+id, cmp.Or(a.homes[id], "none"), cmp.Or(b.homes[id], "none"))
	}
	slices.Sort(differences)
	return differences
}

func summary(s admin.Status) other {
	o := other{Registrar: s.Registrar, Ready: s.Ready, Pools: s.Pools, Elements: s.Elements, Digest: s.Digest}
	if s.Ring != nil {
		o.View, o.settings = s.Ring.View, s.Ring.Settings
	}
	return o
}

// homes returns the checksums of what each registrar is home to, as this one knows
// it; nil if it can't tell.
func homes(ctx context.Context, s source) map[string]string {
	if _, ok := s.(adminSource); !ok {
		return nil
	}
	list, err := s.Registrars(ctx)
	if err != nil {
		return nil
	}
	sums := make(map[string]string)
	for _, r := range list {
		if r.Elements > 0 {
			sums[r.ID] = r.Checksum
		}
	}
	return sums
}

// answer is that of another registrar.
type answer struct {
	other   other
	homes   map[string]string
	guessed bool // its address is
}

// askOthers asks the other registrars, all at once: those that were named, and the
// members of the ring.
func (p *program) askOthers(ctx context.Context, c config, first source, named []string, ring *admin.RingSummary) []answer {
	servers := slices.Clone(named)
	if s, ok := first.(adminSource); ok && ring != nil {
		servers = append(servers, guesses(ctx, s)...)
	}
	answers := make([]answer, len(servers))
	var all sync.WaitGroup
	for i, server := range servers {
		all.Go(func() { answers[i] = p.askOne(ctx, c, server, i >= len(named)) })
	}
	all.Wait()
	return answers
}

func (p *program) askOne(ctx context.Context, c config, server string, guessed bool) answer {
	a := answer{other: other{Server: server}, guessed: guessed}
	if guessed {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, guessPatience)
		defer cancel()
	}
	s, err := p.open(server, c)
	if err == nil {
		defer s.Close()
		var st admin.Status
		if st, err = s.Status(ctx); err == nil {
			a.other, a.homes = summary(st), homes(ctx, s)
			a.other.Server = server
		}
	}
	if err != nil {
		a.other.Error = err.Error()
	}
	return a
}

// guesses returns where the admin APIs of the other members may be: at their
// addresses, by the port of this one's.
func guesses(ctx context.Context, s adminSource) []string {
	u, err := url.Parse(s.Address())
	if err != nil {
		return nil
	}
	ring, err := s.Ring(ctx)
	if err != nil {
		return nil
	}
	var out []string
	for _, m := range ring.Members {
		for contact := range strings.FieldsSeq(m.Contact) {
			e, err := transport.ParseEndpoint(contact, transport.Auto, 0)
			if err != nil || m.State == admin.MemberSelf {
				continue
			}
			for _, host := range e.Hosts {
				server := u.Scheme + "://" + net.JoinHostPort(host, u.Port())
				if !slices.Contains(out, server) {
					out = append(out, server)
				}
			}
		}
	}
	return out
}

func printReport(r report, out *cli.Printer) error {
	rows := [][]string{
		{"registrar", r.Registrar}, {"version", r.Version}, {"started", moment(r.Started)}, {"ready", yes(r.Ready)},
		{"pools", strconv.Itoa(r.Pools)}, {"elements", strconv.Itoa(r.Elements)}, {"suspects", strconv.Itoa(r.Suspects)},
		{"checksum", r.Checksum}, {"connections", strconv.Itoa(r.Conns)}, {"subscriptions", strconv.Itoa(r.Subscribed)},
		{"endpoints", endpointsCell(r.Endpoints)},
	}
	for _, n := range r.Networks {
		if n.Error != "" {
			rows = append(rows, []string{"without " + n.Name, n.Error})
		}
	}
	if r.Digest != "" {
		rows = append(rows, []string{"digest", r.Digest})
	}
	if r.Ring != nil {
		rows = append(rows, []string{"ring", r.Ring.Cluster}, []string{"view", short(r.Ring.View)},
			[]string{"members", strings.Join(r.Ring.Members, " ")}, []string{"whole", yes(r.Ring.Whole)},
			[]string{"held answers", strconv.Itoa(r.Ring.HeldAnswers)})
	}
	for _, problem := range r.Problems {
		rows = append(rows, []string{"problem", problem})
	}
	if err := out.Print(r, []cli.Column{{Name: "ITEM"}, {Name: "VALUE"}}, rows); err != nil {
		return err
	}
	if len(r.Others) == 0 || out.Format == cli.JSON || out.Format == cli.YAML {
		return nil
	}
	rows = nil
	for _, o := range r.Others {
		row := []string{o.Registrar, o.Server, "", "", "", "", "", o.Error}
		if o.Error == "" {
			row = []string{o.Registrar, o.Server, yes(o.Ready), strconv.Itoa(o.Pools), strconv.Itoa(o.Elements), o.Digest, short(o.View), ""}
		}
		rows = append(rows, row)
	}
	if err := blank(out); err != nil {
		return err
	}
	return out.Print(nil, []cli.Column{{Name: "OTHER"}, {Name: "SERVER"}, {Name: "READY"}, {Name: "POOLS"}, {Name: "ELEMENTS"},
		{Name: "DIGEST"}, {Name: "VIEW"}, {Name: "ERROR"}}, rows)
}
