package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"rserpool/asap/hunt"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/mcast"
	"rserpool/asap/transport/sctp"
	"rserpool/asap/transport/tcp"
	"rserpool/poolelement"
	"rserpool/poolelement/sidecar"
	"rserpool/selection"
)

// defaultPort is where registrars listen (RFC 5352, section 8.2).
const defaultPort = 3863

// service is what the settings say of one service.
type service struct {
	Pool, Policy, Life, ID string

	Service, Advertise string
	ControlChannel     bool

	Check, CheckStatus, CheckExit string
	CheckInterval, CheckTimeout   time.Duration
	CheckRise, CheckFall          int

	Load                             string
	LoadInterval, LoadReportInterval time.Duration
	LoadStep                         float64
}

// settings are the texts of flags and files; resolve gives them their meaning.
type settings struct {
	service

	Registrars         []string
	Announce           string
	AnnounceInterfaces []string
	Control            string
	RFCStrict  bool
	Compat     string
	Timers     string

	Reregister, RetryMin, RetryMax time.Duration
	RetryRejected, StopTimeout     time.Duration
	GiveUp                         bool
}

func (c *settings) declare(fs *pflag.FlagSet) {
	fs.StringVar(&c.Pool, "pool", "", "pool handle of the pool to join")
	fs.StringVar(&c.Policy, "policy", "rr", "pool member selection policy, the same type in the whole pool: rr, rand, wrr:WEIGHT, wrand:WEIGHT, prio:PRIORITY, lu, rlu, lud:DEGRADATION, plu:DEGRADATION")
	fs.StringVar(&c.Life, "life", "", "registration life, such as 5m, or infinite (default 5m, with --compat rsplib 90s)")
	fs.StringVar(&c.ID, "id", "", "PE identifier, such as 0x12345678 (default: random)")
	fs.StringVar(&c.Service, "service", "", "the server: tcp://HOST:PORT, sctp://HOST:PORT or udp://HOST:PORT")
	fs.StringVar(&c.Advertise, "advertise", "", "HOST[,HOST...][:PORT] to register; the port defaults to the service's (default: the own addresses of the association to the registrar, loopback only if that is on loopback)")
	fs.BoolVar(&c.ControlChannel, "control-channel", false, "the SCTP service carries ASAP control messages beside data (default: data only)")

	fs.StringVar(&c.Check, "check", "", "health check: none, tcp, tcp://HOST:PORT, http://..., https://... or exec:COMMAND (default: tcp for tcp services, else none)")
	fs.StringVar(&c.CheckStatus, "check-status", "200-399", "HTTP status, or range of them, that passes the check")
	fs.StringVar(&c.CheckExit, "check-exit", "0", "exit code, or range of them, that passes the check")
	fs.DurationVar(&c.CheckInterval, "check-interval", 2*time.Second, "time between checks")
	fs.DurationVar(&c.CheckTimeout, "check-timeout", time.Second, "time a check may take")
	fs.IntVar(&c.CheckRise, "check-rise", 2, "passes in a row that bring the server back into the pool")
	fs.IntVar(&c.CheckFall, "check-fall", 3, "failures in a row that take it out")

	fs.StringVar(&c.Load, "load", "", "where to read the load, for adaptive policies: file:PATH, exec:COMMAND or http://...; the first word counts, 0.35 or 35%")
	fs.DurationVar(&c.LoadInterval, "load-interval", time.Second, "time between readings of the load")
	fs.Float64Var(&c.LoadStep, "load-step", 0.02, "smallest change of the load to report, as a share of full load")
	fs.DurationVar(&c.LoadReportInterval, "load-report-interval", time.Second, "shortest time between two reports of the load")

	fs.StringSliceVar(&c.Registrars, "registrar", nil, "registrar, [sctp://|tcp://]HOST[,HOST...][:PORT]; repeatable; names may have several addresses")
	fs.StringVar(&c.Announce, "announce", "off", "learn of registrars by multicast: off, auto (the groups of the RFC, with --compat rsplib rsplib's), or GROUP[:PORT]")
	fs.StringSliceVar(&c.AnnounceInterfaces, "announce-interface", nil, "network interface to hear announcements on; repeatable (default: all with multicast)")
	fs.StringVar(&c.Control, "listen", ":0", "HOST[,HOST...]:PORT where registrars reach this element; port 0 takes a free one")
	fs.BoolVar(&c.RFCStrict, "rfc-strict", false, "SCTP only: no registration over TCP, which is an extension")
	fs.StringVar(&c.Compat, "compat", "none", "suit another make of registrar: none, rsplib")
	fs.StringVar(&c.Timers, "timers", "auto", "timers of requests and hunt: auto (as --compat says), rfc, rsplib, fast (sub-second, for one host or rack)")

	fs.DurationVar(&c.Reregister, "reregister", 0, "time between registrations (default: as RFC 5352 says, from the life)")
	fs.BoolVar(&c.GiveUp, "give-up", false, "end when no registrar answers, instead of trying again with growing pauses")
	fs.DurationVar(&c.RetryMin, "retry-min", time.Second, "first pause when no registrar answers; it doubles")
	fs.DurationVar(&c.RetryMax, "retry-max", time.Minute, "longest such pause")
	fs.DurationVar(&c.RetryRejected, "retry-rejected", 0, "pause before a refused registration is tried again (default: never, it ends the program)")
	fs.DurationVar(&c.StopTimeout, "stop-timeout", 5*time.Second, "time for the deregistration at the end")
}

// sameButPolicyAndLife reports whether nothing differs that a reload can't change.
func (c settings) sameButPolicyAndLife(other settings) bool {
	c.Policy, c.Life = other.Policy, other.Life
	return reflect.DeepEqual(c, other)
}

// announced stands for the registrars that announcements will bring.
var announced = transport.Endpoint{Network: transport.Auto, Hosts: []string{"announced"}, Port: defaultPort}

// validate names everything that is wrong.
func (c *settings) validate() error {
	element, err := c.element()
	car, carErr := c.sidecar()
	errs := []error{err, carErr}
	if err == nil {
		if c.Announce != "off" {
			element.Registrars = append(element.Registrars, announced)
		}
		errs = append(errs, element.Validate())
	}
	if carErr == nil {
		errs = append(errs, car.Validate())
	}
	return errors.Join(errs...)
}

// element returns the configuration of the pool element, without announcers.
func (c *settings) element() (poolelement.Config, error) {
	var errs []error
	check := func(flag string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", flag, err))
		}
	}
	e := poolelement.Config{
		Handle: param.PoolHandle(c.Pool), Networks: transport.NewNetworks(sctp.New(), tcp.New()),
		Reregister: c.Reregister, GiveUp: c.GiveUp, RetryMin: c.RetryMin, RetryMax: c.RetryMax,
		RetryRejected: c.RetryRejected, StopTimeout: c.StopTimeout,
		LoadStep: c.LoadStep, LoadInterval: c.LoadReportInterval,
		Withdrawn: true,
	}
	if c.Pool == "" {
		errs = append(errs, errors.New("pool: which pool? Give --pool"))
	}
	if c.RFCStrict {
		e.Networks = transport.NewNetworks(sctp.New())
	}
	if len(c.Registrars) == 0 && c.Announce == "off" {
		errs = append(errs, errors.New("registrar: which one? Give --registrar or --announce"))
	}
	for _, text := range c.Registrars {
		r, err := transport.ParseEndpoint(text, transport.Auto, defaultPort)
		check("registrar", err)
		e.Registrars = append(e.Registrars, r)
	}
	var err error
	e.Control, err = transport.ParseEndpoint(c.Control, transport.Auto, 0)
	check("listen", err)
	e.User, err = c.userTransport()
	check("service", err)
	e.Policy, err = selection.Parse(c.Policy)
	check("policy", err)
	e.Life, err = parseLife(c.Life)
	check("life", err)
	e.ID, err = parseID(c.ID)
	check("id", err)
	switch c.Compat {
	case "none":
	case "rsplib":
		e.Compat = poolelement.Rsplib
	default:
		check("compat", fmt.Errorf("%q is neither none nor rsplib", c.Compat))
	}
	switch c.Timers {
	case "auto":
	case "rfc":
		e.Hunt = hunt.Default()
	case "rsplib":
		e.Hunt = hunt.RSPLib()
	case "fast":
		e.Hunt = hunt.Fast()
	default:
		check("timers", fmt.Errorf("%q is none of auto, rfc, rsplib, fast", c.Timers))
	}
	_, err = c.groups()
	check("announce", err)
	if c.Load != "" && !e.Policy.Type.Adaptive() {
		check("load", fmt.Errorf("the policy %q has no load", c.Policy))
	}
	return e, errors.Join(errs...)
}

// userTransport returns the transport to register. Without --advertise it has no
// addresses, which stands for the association's own.
func (c *settings) userTransport() (param.Transport, error) {
	at, err := c.parseService()
	if err != nil {
		return param.Transport{}, err
	}
	t := param.Transport{Type: transports[at.network], Port: at.Port}
	if c.ControlChannel {
		if t.Type != param.TypeSCTPTransport {
			return t, errors.New("only an SCTP service can have a control channel")
		}
		t.Use = param.DataAndControl
	}
	if c.Advertise == "" {
		return t, nil
	}
	to, err := transport.ParseEndpoint(c.Advertise, transport.TCP, at.Port)
	if err != nil {
		return t, fmt.Errorf("advertise: %w", err)
	}
	t.Port = to.Port
	for _, host := range to.Hosts {
		addr, err := netip.ParseAddr(host)
		if err != nil {
			return t, fmt.Errorf("advertise: %q is not an IP address", host)
		}
		t.Addrs = append(t.Addrs, addr)
	}
	if len(t.Addrs) > 1 && t.Type != param.TypeSCTPTransport {
		return t, errors.New("advertise: only an SCTP service can have several addresses")
	}
	return t, nil
}

// transports are the kinds of services by name.
var transports = map[string]param.Type{
	"tcp": param.TypeTCPTransport, "sctp": param.TypeSCTPTransport, "udp": param.TypeUDPTransport,
}

type serviceAddress struct {
	network string
	transport.Endpoint
}

func (c *settings) parseService() (serviceAddress, error) {
	network, rest, ok := strings.Cut(c.Service, "://")
	if !ok || transports[network] == 0 {
		return serviceAddress{}, fmt.Errorf("%q does not begin with tcp://, sctp:// or udp://", c.Service)
	}
	at, err := transport.ParseEndpoint("tcp://"+rest, transport.TCP, 0)
	if err == nil && at.Port == 0 {
		err = fmt.Errorf("%q has no port", c.Service)
	}
	return serviceAddress{network, at}, err
}

// sidecar returns the configuration of checks and load.
func (c *settings) sidecar() (sidecar.Config, error) {
	car := sidecar.Config{
		Service: c.Service, Interval: c.CheckInterval, Timeout: c.CheckTimeout,
		Rise: c.CheckRise, Fall: c.CheckFall, GaugeInterval: c.LoadInterval,
	}
	at, err := c.parseService()
	if err != nil {
		return car, nil // the element's configuration says so
	}
	var errs []error
	status, err := sidecar.ParseStatusRange(c.CheckStatus)
	if err != nil {
		errs = append(errs, fmt.Errorf("check-status: %w", err))
	}
	exit, err := sidecar.ParseStatusRange(c.CheckExit)
	if err != nil {
		errs = append(errs, fmt.Errorf("check-exit: %w", err))
	}
	kind := c.Check
	if kind == "" {
		if kind = "none"; at.network == "tcp" {
			kind = "tcp"
		}
	}
	host := at.Hosts[0]
	if host == "" {
		host = "localhost"
	}
	car.Check, err = sidecar.ParseCheck(kind, net.JoinHostPort(host, strconv.Itoa(int(at.Port))), status, exit)
	errs = append(errs, err)
	car.Gauge, err = sidecar.ParseGauge(c.Load)
	return car, errors.Join(append(errs, err)...)
}

// parseLife reads a registration life; an empty one is the default.
func parseLife(s string) (param.Life, error) {
	switch s {
	case "":
		return 0, nil
	case "infinite":
		return param.InfiniteLife, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is neither a duration such as 5m nor infinite", s)
	}
	if d < time.Second || d%time.Second != 0 || d > math.MaxInt32*time.Second {
		return 0, fmt.Errorf("%v is not a whole number of seconds from 1 to %d", d, math.MaxInt32)
	}
	return param.Life(d / time.Second), nil
}

// parseID reads a PE identifier; an empty one is random.
func parseID(s string) (param.PEID, error) {
	if s == "" {
		return 0, nil
	}
	id, err := strconv.ParseUint(s, 0, 32)
	if err != nil || id == 0 {
		return 0, fmt.Errorf("%q is not a number from 1 to 0xffffffff", s)
	}
	return param.PEID(id), nil
}

// groups returns the multicast groups of --announce, none when it is off.
func (c *settings) groups() ([]netip.AddrPort, error) {
	switch {
	case c.Announce == "off":
		return nil, nil
	case c.Announce == "auto" && c.Compat == "rsplib":
		return mcast.RsplibGroups(), nil
	case c.Announce == "auto":
		return mcast.RFCGroups(mcast.SiteLocal), nil
	}
	group, err := netip.ParseAddrPort(c.Announce)
	if err != nil {
		var addr netip.Addr
		addr, err = netip.ParseAddr(c.Announce)
		group = netip.AddrPortFrom(addr, mcast.Port)
	}
	if err != nil || !group.Addr().IsMulticast() {
		return nil, fmt.Errorf("%q is neither off nor auto nor a multicast group", c.Announce)
	}
	return []netip.AddrPort{group}, nil
}

// build makes the element and what it needs; end frees that when the element has
// ended.
func (c *settings) build(ctx context.Context, log logrus.FieldLogger, onEvent func(poolelement.Event)) (e *poolelement.Element, end func() error, err error) {
	cfg, err := c.element()
	if err != nil {
		return nil, nil, err
	}
	cfg.Log, cfg.OnEvent = log, onEvent
	end = func() error { return nil }
	groups, err := c.groups()
	if err != nil {
		return nil, nil, err
	}
	if len(groups) > 0 {
		announcer, err := mcast.Open(ctx, mcast.Config{
			Groups: groups, Interfaces: c.AnnounceInterfaces,
			Report: func(err error) { log.WithError(err).Warn("registrar announcements") },
		})
		if err != nil {
			return nil, nil, fmt.Errorf("announce: %w", err)
		}
		cfg.Announcers = []transport.Announcer{announcer}
		end = announcer.Close
	}
	if e, err = poolelement.New(cfg); err != nil {
		return nil, nil, errors.Join(err, end())
	}
	return e, end, nil
}
