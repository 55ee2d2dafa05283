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

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/sctp"
	"rserpool/asap/transport/tcp"
	"rserpool/cmd/internal/registrars"
	"rserpool/poolelement"
	"rserpool/poolelement/sidecar"
	"rserpool/selection"
)

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

	registrars.Settings
	Control   string
	RFCStrict bool

	Reregister, RetryMin, RetryMax time.Duration
	RetryRejected, StopTimeout     time.Duration
	GiveUp                         bool
}

func (c *settings) declare(fs *pflag.FlagSet) {
	fs.StringVar(&c.Pool, "pool", "", "pool handle of the pool to join")
	fs.StringVar(&c.Policy, "policy", "rr", "pool member selection policy, the same type in the whole pool: rr, rand, wrr:WEIGHT, wrand:WEIGHT, prio:PRIORITY, lu, rlu, lud:DEGRADATION, plu:DEGRADATION; ours: p2c, hrw:WEIGHT, ewma; rsplib's: rplu:DEGRADATION, rlud:DEGRADATION, plud:DEGRADATION, rplud:DEGRADATION, ludpf:PENALTY:DISTANCE, luddpf:DEGRADATION:PENALTY:DISTANCE, wranddpf:WEIGHT:PENALTY:DISTANCE")
	fs.StringVar(&c.Life, "life", "", "registration life, such as 5m, or infinite (default 5m, with --compat rsplib 90s)")
	fs.StringVar(&c.ID, "id", "", "PE identifier, such as 0x12345678 (default: random)")
	fs.StringVar(&c.Service, "service", "", "the server: tcp://HOST:PORT, sctp://HOST:PORT or udp://HOST:PORT")
	fs.StringVar(&c.Advertise, "advertise", "", "HOST[,HOST...][:PORT] to register; the port defaults to the service's (default: the own addresses of the association to the registrar, loopback only if that is on loopback)")
	fs.BoolVar(&c.ControlChannel, "control-channel", false, "the SCTP service carries ASAP control messages beside data (default: data only)")

	fs.StringVar(&c.Check, "check", "", "health check: none, tcp, tcp://HOST:PORT, http://..., https://... or exec:COMMAND (default: tcp for tcp services, else none)")
	fs.StringVar(&c.CheckStatus, "check-status", "200-399", "HTTP status, or range of them, that passes the check")
	fs.StringVar(&c.CheckExit, "check-exit", "0", "exit code, or range of them, that passes the check")
	fs.DurationVar(&c.CheckInterval, "check-interval", 2*time.Second, "time between checks")
	fs.DurationVar(&c.CheckTimeout, "check-timeout", 0, "time a check may take (default 1s, or --check-interval if that is shorter)")
	fs.IntVar(&c.CheckRise, "check-rise", 2, "passes in a row that bring the server back into the pool")
	fs.IntVar(&c.CheckFall, "check-fall", 3, "failures in a row that take it out")

	fs.StringVar(&c.Load, "load", "", "where to read the load, for adaptive policies: file:PATH, exec:COMMAND or http://...; the first word counts, 0.35 or 35%")
	fs.DurationVar(&c.LoadInterval, "load-interval", time.Second, "time between readings of the load")
	fs.Float64Var(&c.LoadStep, "load-step", 0.02, "smallest change of the load to report, as a share of full load")
	fs.DurationVar(&c.LoadReportInterval, "load-report-interval", time.Second, "shortest time between two reports of the load")

	c.Settings.Declare(fs)
	fs.StringVar(&c.Control, "listen", ":0", "HOST[,HOST...]:PORT where registrars reach this element; port 0 takes a free one")
	fs.BoolVar(&c.RFCStrict, "rfc-strict", false, "SCTP only: no registration over TCP, which is an extension")

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

// validate names everything that is wrong.
func (c *settings) validate() error {
	element, _, err := c.element()
	car, carErr := c.sidecar()
	errs := []error{err, carErr}
	if err == nil {
		errs = append(errs, element.Validate())
	}
	if carErr == nil {
		errs = append(errs, car.Validate())
	}
	return errors.Join(errs...)
}

// element returns the configuration of the pool element, with a nil announcer if
// there are to be any, and where the registrars are.
func (c *settings) element() (poolelement.Config, registrars.Parsed, error) {
	found, err := c.Settings.Parse()
	errs := []error{err}
	check := func(flag string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", flag, err))
		}
	}
	e := poolelement.Config{
		Handle: param.PoolHandle(c.Pool), Networks: transport.NewNetworks(sctp.New(), tcp.New()),
		Registrars: found.Endpoints, Hunt: found.Hunt,
		Reregister: c.Reregister, GiveUp: c.GiveUp, RetryMin: c.RetryMin, RetryMax: c.RetryMax,
		RetryRejected: c.RetryRejected, StopTimeout: c.StopTimeout,
		LoadStep: c.LoadStep, LoadInterval: c.LoadReportInterval,
		Withdrawn: true,
	}
	if c.Pool == "" {
		errs = append(errs, errors.New("pool: which pool? Give --pool"))
	}
	if found.RSPLib {
		e.Compat = poolelement.Rsplib
	}
	if len(found.Groups) > 0 {
		e.Announcers = []transport.Announcer{nil}
	}
	if c.RFCStrict {
		e.Networks = transport.NewNetworks(sctp.New())
	}
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
	if c.Load != "" && !e.Policy.Type.Has(param.FieldLoad) {
		check("load", fmt.Errorf("the policy %q has no load", c.Policy))
	}
	return e, found, errors.Join(errs...)
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

// open makes the element; end frees what it holds when it has ended.
func (c *settings) open(ctx context.Context, log logrus.FieldLogger, onEvent func(poolelement.Event)) (e *poolelement.Element, end func() error, err error) {
	cfg, found, err := c.element()
	if err != nil {
		return nil, nil, err
	}
	cfg.Log, cfg.OnEvent = log, onEvent
	if cfg.Announcers, end, err = found.Open(ctx, log); err != nil {
		return nil, nil, err
	}
	if e, err = poolelement.New(cfg); err != nil {
		return nil, nil, errors.Join(err, end())
	}
	return e, end, nil
}
