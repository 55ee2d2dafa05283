package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/sctp"
	"rserpool/asap/transport/tcp"
	"rserpool/cmd/internal/cli"
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
	Listen             string

	Check, CheckStatus, CheckExit string
	CheckInterval, CheckTimeout   time.Duration
	CheckRise, CheckFall          int

	Load                             string
	LoadInterval, LoadReportInterval time.Duration
	LoadStep                         float64
}

// settings are the texts of flags and files; the methods give them their meaning.
type settings struct {
	service             // of the flags; the defaults of Services
	Services []*service // of the files

	registrars.Settings
	RFCStrict bool

	Reregister, RetryMin, RetryMax time.Duration
	RetryRejected, StopTimeout     time.Duration
	GiveUp                         bool

	Drain string
	executing
}

// services returns the services to look after.
func (c *settings) services() []*service {
	if len(c.Services) > 0 {
		return c.Services
	}
	return []*service{&c.service}
}

func (c *service) declare(fs *pflag.FlagSet) {
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

	fs.StringVar(&c.Listen, "listen", ":0", "HOST[,HOST...]:PORT where registrars reach this element; port 0 takes a free one")
}

// sections are the lists of mappings that files may have.
func sections(s *cli.Settings[settings]) {
	s.Section("services", func(fs *pflag.FlagSet, c *settings) {
		c.Services = append(c.Services, &service{})
		c.Services[len(c.Services)-1].declare(fs)
	})
}

func (c *settings) declare(fs *pflag.FlagSet) {
	c.service.declare(fs)
	c.Settings.Declare(fs)
	fs.BoolVar(&c.RFCStrict, "rfc-strict", false, "SCTP only: no registration over TCP, which is an extension")

	fs.DurationVar(&c.Reregister, "reregister", 0, "time between registrations (default: as RFC 5352 says, from the life)")
	fs.BoolVar(&c.GiveUp, "give-up", false, "end when no registrar answers, or none is found for 45s (15s with --compat rsplib, 3s with --timers fast), instead of trying again with growing pauses")
	fs.DurationVar(&c.RetryMin, "retry-min", time.Second, "first pause when no registrar answers; it doubles")
	fs.DurationVar(&c.RetryMax, "retry-max", time.Minute, "longest such pause")
	fs.DurationVar(&c.RetryRejected, "retry-rejected", 0, "pause before a refused registration is tried again (default: never, it ends the program)")
	fs.DurationVar(&c.StopTimeout, "stop-timeout", 5*time.Second, "time for the deregistration at the end")
	fs.StringVar(&c.Drain, "drain", "", "time at the end, after the deregistration, for the clients' connections to end; counted for TCP services at an address of this machine on Linux, else the whole time is waited for (default 10s with a command, else 0s)")
	c.executing.declare(fs)
}

// sameButPolicyAndLife reports whether nothing differs that a reload can't change.
func (c settings) sameButPolicyAndLife(other settings) bool {
	bare := func(c settings) settings {
		c.Policy, c.Life = "", ""
		list := c.Services
		c.Services = nil
		for _, s := range list {
			s := *s
			s.Policy, s.Life = "", ""
			c.Services = append(c.Services, &s)
		}
		return c
	}
	return reflect.DeepEqual(bare(c), bare(other))
}

// drain returns the time for connections to end.
func (c *settings) drain(command bool) (time.Duration, error) {
	if c.Drain == "" {
		if command {
			return 10 * time.Second, nil
		}
		return 0, nil
	}
	d, err := time.ParseDuration(c.Drain)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration such as 10s", c.Drain)
	}
	return d, nil
}

// validate names everything that is wrong.
func (c *settings) validate() error {
	found, err := c.Parse()
	errs := []error{err}
	if _, err := c.drain(false); err != nil {
		errs = append(errs, fmt.Errorf("drain: %w", err))
	}
	errs = append(errs, c.executing.validate())
	list := c.services()
	for i, s := range list {
		if err := c.validateService(s, found); err != nil && len(list) > 1 {
			errs = append(errs, fmt.Errorf("service %d, %s in pool %q: %w", i+1, s.Service, s.Pool, err))
		} else {
			errs = append(errs, err)
		}
		for j, other := range list[:i] {
			errs = append(errs, clash(i, s, j, other))
		}
	}
	return errors.Join(errs...)
}

func (c *settings) validateService(s *service, found registrars.Parsed) error {
	element, err := c.element(s, found)
	car, carErr := s.sidecar()
	errs := []error{err, carErr}
	if err == nil && (len(found.Endpoints) > 0 || len(found.Groups) > 0) { // else that is said already
		errs = append(errs, element.Validate())
	}
	if carErr == nil {
		errs = append(errs, car.Validate())
	}
	return errors.Join(errs...)
}

// clash tells what two services must not share.
func clash(i int, s *service, j int, other *service) error {
	var errs []error
	same := func(what, value string) {
		errs = append(errs, fmt.Errorf("services %d and %d have the same %s, %s", j+1, i+1, what, value))
	}
	if s.Pool == other.Pool && s.Service == other.Service && s.Advertise == other.Advertise {
		same("pool and service", s.Service)
	}
	if s.Pool == other.Pool && s.ID != "" && s.ID == other.ID {
		same("pool and id", s.ID)
	}
	if at, err := transport.ParseEndpoint(s.Listen, transport.Auto, 0); err == nil && at.Port != 0 && s.Listen == other.Listen {
		same("listen", s.Listen)
	}
	return errors.Join(errs...)
}

// element returns the configuration of a service's pool element, with a nil
// announcer if there are to be any.
func (c *settings) element(s *service, found registrars.Parsed) (poolelement.Config, error) {
	var errs []error
	check := func(flag string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", flag, err))
		}
	}
	e := poolelement.Config{
		Handle: param.PoolHandle(s.Pool), Networks: transport.NewNetworks(sctp.New(), tcp.New()),
		Registrars: found.Endpoints, Hunt: found.Hunt,
		Reregister: c.Reregister, GiveUp: c.GiveUp, RetryMin: c.RetryMin, RetryMax: c.RetryMax,
		RetryRejected: c.RetryRejected, StopTimeout: c.StopTimeout,
		LoadStep: s.LoadStep, LoadInterval: s.LoadReportInterval,
		Withdrawn: true,
	}
	if s.Pool == "" {
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
	var err error
	e.Control, err = transport.ParseEndpoint(s.Listen, transport.Auto, 0)
	check("listen", err)
	e.User, err = s.userTransport()
	check("service", err)
	e.Policy, err = selection.Parse(s.Policy)
	check("policy", err)
	e.Life, err = parseLife(s.Life)
	check("life", err)
	e.ID, err = parseID(s.ID)
	check("id", err)
	if s.Load != "" && !e.Policy.Type.Has(param.FieldLoad) {
		check("load", fmt.Errorf("the policy %q has no load", s.Policy))
	}
	return e, errors.Join(errs...)
}

// userTransport returns the transport to register. Without --advertise it has no
// addresses, which stands for the association's own.
func (c *service) userTransport() (param.Transport, error) {
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

func (c *service) parseService() (serviceAddress, error) {
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
func (c *service) sidecar() (sidecar.Config, error) {
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
