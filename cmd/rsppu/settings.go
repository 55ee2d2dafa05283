package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"rserpool/asap/hunt"
	"rserpool/asap/transport"
	"rserpool/cmd/internal/cli"
	"rserpool/pooluser"
)

// settings are the texts of flags and files.
type settings struct {
	Registrars []string
	Announce   string
	Compat     string
	Timers     string
	Stale      time.Duration
	Subscribe  bool

	Timeout, AttemptTimeout time.Duration
	PPID                    uint32

	Request, HTTP, Exec string
	Lines               bool
	Read                string
	Repeat              int
	Interval            time.Duration
	Sticky, Raw, Quiet  bool
	Output              cli.Format
}

func (c *settings) declare(fs *pflag.FlagSet) {
	fs.StringSliceVar(&c.Registrars, "registrar", nil, "registrar, [sctp://|tcp://]HOST[,HOST...][:PORT]; repeatable; names may have several addresses")
	fs.StringVar(&c.Announce, "announce", "off", "learn of registrars by multicast: off, auto, or GROUP[:PORT]")
	fs.StringVar(&c.Compat, "compat", "none", "suit another make of registrar: none, rsplib")
	fs.StringVar(&c.Timers, "timers", "auto", "timers of requests and hunt: auto (as --compat says), rfc, rsplib, fast (sub-second, for one host or rack)")
	fs.DurationVar(&c.Stale, "stale", 30*time.Second, "how long an answer of the registrar is used before it is renewed; 0 asks for each connection")
	fs.BoolVar(&c.Subscribe, "subscribe", false, "ask the registrar to send changes of the pool")

	fs.DurationVar(&c.Timeout, "timeout", 15*time.Second, "time for a connection or a request, all elements tried included")
	fs.DurationVar(&c.AttemptTimeout, "attempt-timeout", 2*time.Second, "time for one element to accept a connection, and to answer a request")
	fs.Uint32Var(&c.PPID, "ppid", 0, "payload protocol identifier of messages to SCTP elements")

	fs.StringVar(&c.Request, "request", "", "send this text as a request")
	fs.BoolVar(&c.Lines, "lines", false, "send each line of standard input as a request")
	fs.StringVar(&c.HTTP, "http", "", "send an HTTP request, GET of this path")
	fs.StringVar(&c.Exec, "exec", "", "run this command for each request, with RSPPU_ADDRESS, RSPPU_HOST, RSPPU_PORT, RSPPU_ELEMENT and RSPPU_POOL set; any exit code but 0 means that the element failed")
	fs.StringVar(&c.Read, "read", "line", "what an answer is: line, message (one SCTP message, or what comes at once), eof (all until the element closes)")
	fs.IntVar(&c.Repeat, "repeat", 1, "number of requests; 0 goes on until interrupted")
	fs.DurationVar(&c.Interval, "interval", time.Second, "time between the beginnings of two requests")
	fs.BoolVar(&c.Sticky, "sticky", false, "stay at one element while it answers, instead of a selection for each request")
	fs.BoolVar(&c.Raw, "raw", false, "print nothing but the answers, with --repeat too")
	fs.BoolVarP(&c.Quiet, "quiet", "q", false, "print nothing but the summary")
	cli.FormatVar(fs, &c.Output)
}

// validate names everything that is wrong.
func (c *settings) validate(networks *transport.Networks) error {
	cfg, errs := c.config(networks)
	if len(c.Registrars) == 0 && c.Announce == "off" {
		errs = append(errs, errors.New("registrar: which one? Give --registrar or --announce"))
	}
	if len(errs) == 0 {
		if len(cfg.Registrars) == 0 { // announcements will bring them
			cfg.Registrars = []transport.Endpoint{{Network: transport.Auto, Hosts: []string{"announced"}, Port: hunt.Port}}
		}
		errs = append(errs, cfg.Validate())
	}
	var modes []string
	for _, m := range []struct {
		name string
		set  bool
	}{{"request", c.Request != ""}, {"lines", c.Lines}, {"http", c.HTTP != ""}, {"exec", c.Exec != ""}} {
		if m.set {
			modes = append(modes, "--"+m.name)
		}
	}
	if len(modes) > 1 {
		errs = append(errs, fmt.Errorf("%s exclude each other", strings.Join(modes, " and ")))
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

// config returns the resolver's configuration, without announcers.
func (c *settings) config(networks *transport.Networks) (pooluser.Config, []error) {
	var errs []error
	cfg := pooluser.Config{Networks: networks, Stale: c.Stale, DialTimeout: c.AttemptTimeout, Subscribe: c.Subscribe}
	if c.Stale == 0 {
		cfg.Stale = -1
	}
	for _, text := range c.Registrars {
		e, err := transport.ParseEndpoint(text, transport.Auto, hunt.Port)
		if err != nil {
			errs = append(errs, fmt.Errorf("registrar: %w", err))
			continue
		}
		cfg.Registrars = append(cfg.Registrars, e)
	}
	switch c.Compat {
	case "none":
	case "rsplib":
		cfg.RSPLib = true
	default:
		errs = append(errs, fmt.Errorf("compat: %q is neither none nor rsplib", c.Compat))
	}
	switch c.Timers {
	case "auto":
	case "rfc":
		cfg.Hunt = hunt.Default()
	case "rsplib":
		cfg.Hunt = hunt.RSPLib()
	case "fast":
		cfg.Hunt = hunt.Fast()
	default:
		errs = append(errs, fmt.Errorf("timers: %q is none of auto, rfc, rsplib, fast", c.Timers))
	}
	cfg.Hunt.Ordered = cfg.Hunt.Ordered || cfg.RSPLib
	cfg.Hunt.Jitter = 0.2
	return cfg, errs
}

// resolver returns the whole configuration; end frees what it holds.
func (c *settings) resolver(networks *transport.Networks, log logrus.FieldLogger) (cfg pooluser.Config, end func(), err error) {
	cfg, errs := c.config(networks)
	cfg.Log = log
	return cfg, func() {}, errors.Join(errs...)
}
