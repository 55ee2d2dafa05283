package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/cmd/internal/cli"
	"rserpool/cmd/internal/registrars"
	"rserpool/pooluser"
	"rserpool/pooluser/forward"
	"rserpool/selection"
)

// settings are the texts of flags and files.
type settings struct {
	registrars.Settings
	Stale     time.Duration
	Subscribe bool

	Policy, Key string

	Timeout, AttemptTimeout time.Duration
	PPID                    uint32

	Request, HTTP, Exec string
	Lines               bool
	Read                string
	Repeat              int
	Interval            time.Duration
	Sticky, Raw, Quiet  bool
	Output              cli.Format

	listening
}

func (c *settings) declare(fs *pflag.FlagSet) {
	c.Settings.Declare(fs)
	fs.DurationVar(&c.Stale, "stale", 30*time.Second, "how long an answer of the registrar is used before it is renewed; 0 asks for each connection")
	fs.BoolVar(&c.Subscribe, "subscribe", false, "ask the registrar to send changes of the pool")

	fs.StringVar(&c.Policy, "policy", "", "select elements as users of this policy do, whatever that of the pool: rr, rand, prio; p2c (less load of two), hrw (by --key), ewma (by response times) (default: the pool's)")
	fs.StringVar(&c.Key, "key", "", "what the requests are about; policies with affinity (hrw) give the same key to the same element")

	fs.DurationVar(&c.Timeout, "timeout", 15*time.Second, "time for a connection or a request, all elements tried included")
	fs.DurationVar(&c.AttemptTimeout, "attempt-timeout", 2*time.Second, "time for one element to accept a connection, and to answer a request")
	fs.Uint32Var(&c.PPID, "ppid", 0, "payload protocol identifier of messages to SCTP elements")

	fs.StringVar(&c.Request, "request", "", "send this text as a request")
	fs.BoolVar(&c.Lines, "lines", false, "send each line of standard input as a request")
	fs.StringVar(&c.HTTP, "http", "", "send an HTTP request, GET of this path; an answer of status 500 or more means that the element failed")
	fs.StringVar(&c.Exec, "exec", "", "run this command for each request, with RSPPU_ADDRESS, RSPPU_HOST, RSPPU_PORT, RSPPU_ELEMENT and RSPPU_POOL set; any exit code but 0 means that the element failed")
	fs.StringVar(&c.Read, "read", "line", "what an answer is: line, message (one SCTP message, or what comes at once), eof (all until the element closes)")
	fs.IntVar(&c.Repeat, "repeat", 1, "number of requests; 0 goes on until interrupted")
	fs.DurationVar(&c.Interval, "interval", time.Second, "time between the beginnings of two requests")
	fs.BoolVar(&c.Sticky, "sticky", false, "stay at one element while it answers, instead of a selection for each request")
	fs.BoolVar(&c.Raw, "raw", false, "print nothing but the answers, with --repeat too")
	fs.BoolVarP(&c.Quiet, "quiet", "q", false, "print nothing but the summary")
	cli.FormatVar(fs, &c.Output)
	c.listening.declare(fs)
}

// validate names everything that is wrong.
func (c *settings) validate(networks *transport.Networks) error {
	var errs []error
	cfg, _, err := c.config(networks)
	if err == nil {
		err = cfg.Validate()
	}
	errs = append(errs, err)
	var modes []string
	for _, m := range []struct {
		name string
		set  bool
	}{{"request", c.Request != ""}, {"lines", c.Lines}, {"http", c.HTTP != ""}, {"exec", c.Exec != ""}} {
		if m.set {
			modes = append(modes, "--"+m.name)
		}
	}
	if len(c.Listen) > 0 {
		modes = append(modes, "--listen")
	}
	if len(modes) > 1 {
		errs = append(errs, fmt.Errorf("%s exclude each other", strings.Join(modes, " and ")))
	}
	if c.HTTP != "" {
		if _, err := url.ParseRequestURI(c.HTTP); err != nil || !strings.HasPrefix(c.HTTP, "/") {
			errs = append(errs, fmt.Errorf("http: %q is not a path such as /status", c.HTTP))
		}
	}
	switch c.Read {
	case "line", "message", "eof":
	default:
		errs = append(errs, fmt.Errorf("read: %q is none of line, message, eof", c.Read))
	}
	if c.Lines && c.Repeat != 1 {
		errs = append(errs, errors.New("repeat: --lines sends each line once"))
	}
	if c.Sticky && (c.Exec != "" || c.HTTP != "" || c.Read == "eof") {
		errs = append(errs, errors.New("sticky: works with answers of one line or message only"))
	}
	errs = append(errs, c.listening.validate())
	for _, f := range []struct {
		name string
		bad  bool
	}{
		{"timeout", c.Timeout <= 0}, {"attempt-timeout", c.AttemptTimeout <= 0}, {"stale", c.Stale < 0},
		{"interval", c.Interval < 0}, {"repeat", c.Repeat < 0},
	} {
		if f.bad {
			errs = append(errs, fmt.Errorf("%s: too small", f.name))
		}
	}
	return errors.Join(errs...)
}

// config returns the resolver's configuration, with the announcements' groups in
// place of announcers.
func (c *settings) config(networks *transport.Networks) (pooluser.Config, registrars.Parsed, error) {
	found, err := c.Settings.Parse()
	cfg := pooluser.Config{
		Registrars: found.Endpoints, Networks: networks, Hunt: found.Hunt, RSPLib: found.RSPLib,
		Stale: c.Stale, DialTimeout: c.AttemptTimeout, Subscribe: c.Subscribe, PPID: c.PPID,
	}
	if c.Stale == 0 {
		cfg.Stale = -1
	}
	if len(c.Listen) > 0 {
		cfg.DialStream = forward.DialStream(c.DeadAfter)
	}
	if len(found.Groups) > 0 {
		cfg.Announcers = []transport.Announcer{nil}
	}
	if c.Policy != "" {
		policy, ok := selection.ByName(c.Policy)
		if !ok {
			err = errors.Join(err, fmt.Errorf("policy: unknown policy %q: know %s", c.Policy, strings.Join(selection.Names(), ", ")))
		}
		pick := policy.NewPicker
		if policy.Type == param.PowerOfTwoChoices {
			pick = selection.PickLessLoadedOfTwo // no registrar has drawn
		}
		cfg.Pick = func(param.PoolHandle, param.PolicyType) func(*rand.Rand) selection.Picker { return pick }
	}
	return cfg, found, err
}

// open returns a resolver; end frees what it holds when it has stopped.
func (c *settings) open(ctx context.Context, networks *transport.Networks, log logrus.FieldLogger) (r *pooluser.Resolver, end func() error, err error) {
	cfg, found, err := c.config(networks)
	if err != nil {
		return nil, nil, err
	}
	cfg.Log = log
	if cfg.Announcers, end, err = found.Open(ctx, log); err != nil {
		return nil, nil, err
	}
	if r, err = pooluser.New(cfg); err != nil {
		return nil, nil, errors.Join(err, end())
	}
	return r, end, nil
}
