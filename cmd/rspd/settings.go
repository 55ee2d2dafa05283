package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/mcast"
	"rserpool/cmd/internal/cli"
	"rserpool/cmd/internal/registrars"
	"rserpool/registrar"
	"rserpool/registrar/admin"
	"rserpool/selection"
)

// settings are the texts of flags and files; build gives them their meaning.
type settings struct {
	ID                      string
	Listen, ENRPListen      []string
	Admin                   string
	AdminRemote             bool
	AdminHosts              []string
	Announce                string
	AnnounceInterfaces      []string
	AnnounceHops            int
	Compat                  cli.Compat
	RFCStrict, ForeignAddrs bool
	Timers                  string
	KeepAlive               registrar.KeepAliveTimers
	Tuning                  registrar.Timers
	Limits                  registrar.Limits
	MessageSize, TablePage  cli.Size
	Results, Policies       []string
	cluster                 clusterSettings
	reload                  func() error
}

func (c *settings) declare(fs *pflag.FlagSet) {
	d := registrar.DefaultLimits()
	fs.StringVar(&c.ID, "id", "", "registrar identifier, such as 0x0a0b0c0d (default: in a ring the one kept in --state-dir, else the one that the certificate names, else random)")
	fs.StringArrayVar(&c.Listen, "listen", []string{"auto"}, "where elements and users reach the registrar: auto, sctp or tcp, or one of them with an address, such as sctp://192.0.2.1,198.51.100.1:3863 or tcp://:3863; auto is TCP and, where the kernel has it, SCTP; repeatable")
	fs.StringArrayVar(&c.ENRPListen, "enrp-listen", []string{"auto"}, "where registrars outside the ring and tools reach the registrar, likewise, or off; on loopback only without --tls-cert or --insecure; repeatable")
	fs.StringVar(&c.Admin, "admin", admin.DefaultAddress, "HOST:PORT of the administrators' HTTP interface, or off")
	fs.BoolVar(&c.AdminRemote, "admin-allow-remote", false, "let --admin be another address than loopback; there is no authentication")
	fs.StringSliceVar(&c.AdminHosts, "admin-host", nil, "host name by which the HTTP interface may be called, besides localhost and IP addresses; repeatable")

	fs.StringVar(&c.Announce, "announce", "off", "multicast groups to announce the registrar to: "+registrars.GroupsUsage)
	fs.StringSliceVar(&c.AnnounceInterfaces, "announce-interface", nil, "network interface to announce on; repeatable (default: all with multicast)")
	fs.IntVar(&c.AnnounceHops, "announce-hops", 1, "hop limit of announcements")

	c.cluster.declare(fs)

	cli.CompatVar(fs, &c.Compat, "suit another make of registrars, elements and users")
	fs.BoolVar(&c.RFCStrict, "rfc-strict", false, "keep to the letter of the RFCs: elements register over SCTP only")
	fs.BoolVar(&c.ForeignAddrs, "allow-foreign-addresses", false, "let elements register addresses that are not those of their association, for address translation")

	fs.StringVar(&c.Timers, "timers", "auto", "how soon silent elements are found: auto (as --compat says), rfc (35 s on average), rsplib (10 s), fast (within 2.5 s; a keep-alive per element and second); single values below win")
	fs.DurationVar(&c.KeepAlive.Interval, "keep-alive-interval", 0, "mean time between two keep-alives of an element (0: by --timers)")
	fs.Float64Var(&c.KeepAlive.Spread, "keep-alive-spread", 0, "share by which intervals vary either way, up to 0.9; negative: none (0: by --timers)")
	fs.DurationVar(&c.KeepAlive.Timeout, "keep-alive-timeout", 0, "time for an acknowledgement (0: by --timers)")
	fs.DurationVar(&c.KeepAlive.Gap, "keep-alive-gap", 0, "least time between two keep-alives of an element (0: by --timers)")
	fs.IntVar(&c.KeepAlive.Misses, "keep-alive-misses", 0, "unanswered keep-alives in a row that remove an element (0: by --timers)")
	fs.DurationVar(&c.Tuning.Announce, "announce-interval", time.Second, "T6: time between announcements, times the number of registrars")
	fs.DurationVar(&c.Tuning.UpdateDelay, "update-delay", 0, "time for which changes are collected before subscribers are told, at most 100ms (0: by --timers)")
	fs.DurationVar(&c.Tuning.Write, "write-timeout", 10*time.Second, "time a peer may take to accept data before it is cut off")
	fs.DurationVar(&c.Tuning.Idle, "idle-timeout", 10*time.Minute, "time a connection without element or subscription may be silent, or hold half a message")
	fs.DurationVar(&c.Tuning.Stop, "stop-timeout", 5*time.Second, "time for leaving politely")

	c.MessageSize, c.TablePage = cli.Size(d.MessageSize), cli.Size(d.TablePage)
	cli.SizeVar(fs, &c.MessageSize, "limit-message-size", c.MessageSize, "longest ASAP message")
	cli.SizeVar(fs, &c.TablePage, "table-page", c.TablePage, "octets in one part of the handle table, 1400 to 65532")
	for _, l := range []struct {
		p     *int
		name  string
		value int
		usage string
	}{
		{&c.Limits.Connections, "limit-connections", d.Connections, "connections in all"},
		{&c.Limits.ConnectionsPerAddress, "limit-connections-per-address", d.ConnectionsPerAddress, "connections of one peer address"},
		{&c.Limits.ClientPrefix6, "client-prefix6", d.ClientPrefix6, "leading bits by which IPv6 addresses count as one client, for limits and for reporters; 128 tells all addresses apart"},
		{&c.Limits.Inbox, "limit-inbox", d.Inbox, "events that wait for the owner loop"},
		{&c.Limits.SendQueue, "limit-send-queue", d.SendQueue, "messages that wait for one peer"},
		{&c.Limits.Pools, "limit-pools", d.Pools, "pools in all"},
		{&c.Limits.PoolsPerClient, "limit-pools-per-client", d.PoolsPerClient, "pools that one peer address creates"},
		{&c.Limits.Elements, "limit-elements", d.Elements, "elements in all"},
		{&c.Limits.ElementsPerClient, "limit-elements-per-client", d.ElementsPerClient, "elements that one peer address registers"},
		{&c.Limits.ElementSize, "limit-element-size", d.ElementSize, "octets in one element"},
		{&c.Limits.HandleLength, "limit-handle-length", d.HandleLength, "octets in a pool handle"},
		{&c.Limits.Addresses, "limit-addresses", d.Addresses, "addresses in a transport"},
		{&c.Limits.Subscriptions, "limit-subscriptions", d.Subscriptions, "update subscriptions in all"},
		{&c.Limits.SubscriptionsPerConnection, "limit-subscriptions-per-connection", d.SubscriptionsPerConnection, "update subscriptions of one connection"},
		{&c.Limits.ReportBurst, "limit-report-burst", d.ReportBurst, "unreachable reports of one address at a time"},
		{&c.Limits.Reporters, "limit-reporters", d.Reporters, "reporting addresses that are remembered"},
		{&c.Limits.MaxBadPEReports, "max-bad-pe-reports", d.MaxBadPEReports, "reporters beyond which an element is removed although it answers"},
		{&c.Limits.RemovalFloor, "removal-floor", d.RemovalFloor, "elements of a pool that may always be removed within --removal-window"},
		{&c.Limits.Tombstones, "limit-tombstones", d.Tombstones, "removals that are remembered"},
		{&c.Limits.Dials, "limit-dials", d.Dials, "connections to elements that are set up at a time"},
		{&c.Limits.PoolLabels, "limit-pool-labels", d.PoolLabels, "pools that metrics name"},
		{&c.Limits.Watchers, "limit-watchers", d.Watchers, "event streams of the HTTP interface"},
	} {
		fs.IntVar(l.p, l.name, l.value, l.usage)
	}
	fs.Float64Var(&c.Limits.ReportRate, "limit-report-rate", d.ReportRate, "unreachable reports of one address per second")
	fs.Float64Var(&c.Limits.RemovalShare, "removal-share", d.RemovalShare, "share of a pool that may be removed unattended within --removal-window; elements beyond it are marked suspect and kept; 1 sets no limit")
	fs.DurationVar(&c.Limits.RemovalWindow, "removal-window", d.RemovalWindow, "see --removal-share")
	fs.Float64Var(&c.Limits.HoldBackShare, "hold-back-share", d.HoldBackShare, "share of a pool that --hold-back keeps")
	fs.DurationVar(&c.Limits.HoldBack, "hold-back", d.HoldBack, "time after the loss of registrars of the ring for which elements that do not answer are marked suspect and kept")
	fs.DurationVar(&c.Limits.Tombstone, "tombstone-life", d.Tombstone, "time beyond its registration life for which an element's removal is remembered")
	fs.StringSliceVar(&c.Results, "results", nil, "elements in an answer by policy, POLICY=N; repeatable (default: all that fit; 3 for wrr, p2c, the policies by chance but rand, and with --compat rsplib)")
	fs.StringArrayVar(&c.Policies, "policies", nil, "which policies elements of some pools may have: POOLS=allow:POLICY[,POLICY...], POOLS=forbid:POLICY[,...] or POOLS=pin:POLICY, where * in POOLS stands for anything; the first that matches counts; others are refused, by pin with word of the right one; repeatable (default: every policy that is known)")
}

const off = "off"

// validate names all that is wrong.
func (c *settings) validate() error {
	l, linked := c.cluster.links(logrus.StandardLogger())
	cfg, err := c.build(l, logrus.StandardLogger(), false)
	if cfg.ID == 0 && errors.Join(linked, err) != nil {
		cfg.ID = unknown // why was said, and is not once more
	}
	return errors.Join(linked, err, cfg.WithDefaults().Validate())
}

// build makes the registrar's configuration. keep writes down what is to be kept
// over restarts.
func (c *settings) build(l *links, log logrus.FieldLogger, keep bool) (registrar.Config, error) {
	var errs []error
	fail := func(flag string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", flag, err))
		}
	}
	cfg := registrar.Config{
		Networks: l.plain, Strict: c.RFCStrict,
		ForeignAddresses: c.ForeignAddrs, Limits: c.Limits, Version: cli.Version(), Log: log,
		OnReload: c.reload,
		Admin:    registrar.AdminConfig{Address: c.Admin, AllowRemote: c.AdminRemote, Hosts: c.AdminHosts},
	}
	if c.Compat == cli.CompatRsplib {
		cfg.Compat = registrar.CompatRsplib
	}
	if c.Admin == off {
		cfg.Admin.Address = ""
	}
	var err error
	cfg.ASAP, err = endpoints(c.Listen, asap.Port)
	fail("listen", err)
	others := c.cluster.configure(&cfg, l, c, log)
	var identity error
	if l.credentials != nil || !c.cluster.secure() { // else the one that names it can't be read
		cfg.ID, identity = c.cluster.identity(c.ID, l.named(), cfg.Ring.On(), keep)
	}
	fail("announce", c.announce(&cfg, log))
	fail("timers", c.timers(&cfg))
	fail("results", c.results(&cfg))
	cfg.Policies, err = policyRules(c.Policies)
	fail("policies", err)
	cfg.Limits.MessageSize, cfg.Limits.TablePage = int(c.MessageSize), int(c.TablePage)
	if c.Limits.RemovalShare == 0 { // the registrar takes 0 for the default
		fail("removal-share", errors.New("must be more than 0"))
	}
	return cfg, errors.Join(append(errs, others, identity)...)
}

// unknown stands for the identifier of a registrar that does not start.
const unknown = param.RegistrarID(1)

// alone are the networks that may stand alone for an endpoint.
var alone = []string{transport.Auto, transport.SCTP, transport.TCP}

// endpoints reads addresses to listen on; 'off' stands for none.
func endpoints(texts []string, port uint16) ([]transport.Endpoint, error) {
	out := []transport.Endpoint{}
	var errs []error
	for _, text := range texts {
		if text == off || text == "" {
			continue
		}
		// A network alone stands for all addresses and the standard port.
		if network := strings.TrimSuffix(text, "://"); slices.Contains(alone, network) {
			text = fmt.Sprintf("%s://:%d", network, port)
		}
		e, err := transport.ParseEndpoint(text, transport.Auto, port)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, e)
	}
	return out, errors.Join(errs...)
}

func (c *settings) announce(cfg *registrar.Config, log logrus.FieldLogger) error {
	groups, err := registrars.Groups(c.Announce, c.Compat)
	if err != nil || groups == nil {
		return err
	}
	config := c.multicast(groups, log)
	cfg.Announce = []func(context.Context) (transport.Announcer, error){
		func(ctx context.Context) (transport.Announcer, error) { return mcast.Open(ctx, config) },
	}
	return config.Validate()
}

func (c *settings) multicast(groups []netip.AddrPort, log logrus.FieldLogger) mcast.Config {
	return mcast.Config{
		Groups: groups, Interfaces: c.AnnounceInterfaces, Hops: c.AnnounceHops,
		Report: func(err error) { log.WithError(err).Warn("multicast") },
	}
}

func (c *settings) timers(cfg *registrar.Config) error {
	preset, err := registrars.Preset(c.Timers, c.Compat, registrar.DefaultTimers, registrar.RsplibTimers, registrar.FastTimers)
	if err != nil {
		return err
	}
	cfg.Timers = preset
	t := &cfg.Timers
	override(&t.KeepAlive.Interval, c.KeepAlive.Interval)
	override(&t.KeepAlive.Spread, c.KeepAlive.Spread)
	override(&t.KeepAlive.Timeout, c.KeepAlive.Timeout)
	override(&t.KeepAlive.Gap, c.KeepAlive.Gap)
	override(&t.KeepAlive.Misses, c.KeepAlive.Misses)
	override(&t.UpdateDelay, c.Tuning.UpdateDelay)
	t.Announce, t.Write, t.Idle, t.Stop = c.Tuning.Announce, c.Tuning.Write, c.Tuning.Idle, c.Tuning.Stop
	return nil
}

// override sets a field unless the value is zero.
func override[T comparable](field *T, value T) {
	var zero T
	if value != zero {
		*field = value
	}
}

func (c *settings) results(cfg *registrar.Config) error {
	cfg.Limits.Results = make(map[param.PolicyType]int)
	for _, text := range c.Results {
		name, count, _ := strings.Cut(text, "=")
		policy, ok := selection.ByName(name)
		if !ok {
			return fmt.Errorf("unknown policy %q", name)
		}
		var n int
		if _, err := fmt.Sscanf(count, "%d", &n); err != nil || n < 1 {
			return fmt.Errorf("%q: want POLICY=N with a positive N", text)
		}
		cfg.Limits.Results[policy.Type] = n
	}
	return nil
}

// policyRules reads POOLS=allow:POLICY,..., POOLS=forbid:POLICY,... and
// POOLS=pin:POLICY.
func policyRules(texts []string) ([]registrar.PolicyRule, error) {
	var rules []registrar.PolicyRule
	var errs []error
	for _, text := range texts {
		equals := strings.LastIndex(text, "=") // pool handles may contain others
		way, names, _ := strings.Cut(text[equals+1:], ":")
		var types []param.PolicyType
		for name := range strings.SplitSeq(names, ",") {
			d, ok := selection.ByName(name)
			if !ok {
				errs = append(errs, fmt.Errorf("%q: unknown policy %q: know %s", text, name, strings.Join(selection.Names(), ", ")))
			}
			types = append(types, d.Type)
		}
		rule := registrar.PolicyRule{Pools: text[:max(0, equals)]}
		switch {
		case way == "allow":
			rule.Allow = types
		case way == "forbid":
			rule.Forbid = types
		case way == "pin" && len(types) == 1:
			rule.Pin = types[0]
		default:
			errs = append(errs, fmt.Errorf("%q: want POOLS=allow:POLICY,..., POOLS=forbid:POLICY,... or POOLS=pin:POLICY", text))
		}
		rules = append(rules, rule)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return rules, nil
}
