// Package registrars has the settings by which pool elements and pool users find
// their registrars.
package registrars

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"rserpool/asap/hunt"
	"rserpool/asap/transport"
	"rserpool/asap/transport/mcast"
)

// Settings are the texts of the flags.
type Settings struct {
	Registrars         []string
	Announce           string
	AnnounceInterfaces []string
	Compat             string
	Timers             string
}

// Declare declares the flags.
func (s *Settings) Declare(fs *pflag.FlagSet) {
	// An array, not a slice: commas separate the hosts of one endpoint.
	fs.StringArrayVar(&s.Registrars, "registrar", nil, "registrar, [sctp://|tcp://]HOST[,HOST...][:PORT]; repeatable; names may have several addresses")
	fs.StringVar(&s.Announce, "announce", "off", "learn of registrars by multicast: off, auto, or GROUP[:PORT]")
	fs.StringSliceVar(&s.AnnounceInterfaces, "announce-interfaces", nil, "interfaces for announcements (default: all that have multicast)")
	fs.StringVar(&s.Compat, "compat", "none", "suit another make of registrar: none, rsplib")
	fs.StringVar(&s.Timers, "timers", "auto", "timers of requests and hunt: auto (as --compat says), rfc, rsplib, fast (sub-second, for one host or rack)")
}

// jitter keeps clients of a lost registrar from coming back in step.
const jitter = 0.2

// Parsed is what the texts mean.
type Parsed struct {
	Endpoints  []transport.Endpoint
	Groups     []netip.AddrPort
	Interfaces []string
	Hunt       hunt.Config
	RSPLib     bool
}

// Parse names everything that is wrong with the settings.
func (s *Settings) Parse() (Parsed, error) {
	var errs []error
	p := Parsed{Interfaces: s.AnnounceInterfaces, RSPLib: s.Compat == "rsplib"}
	if s.Compat != "none" && s.Compat != "rsplib" {
		errs = append(errs, fmt.Errorf("compat: %q is neither none nor rsplib", s.Compat))
	}
	for _, text := range s.Registrars {
		e, err := transport.ParseEndpoint(text, transport.Auto, hunt.Port)
		if err != nil {
			errs = append(errs, fmt.Errorf("registrar: %w", err))
		}
		p.Endpoints = append(p.Endpoints, e)
	}
	if len(s.Registrars) == 0 && s.Announce == "off" {
		errs = append(errs, errors.New("registrar: which one? Give --registrar or --announce"))
	}
	var err error
	if p.Groups, err = s.groups(); err != nil {
		errs = append(errs, fmt.Errorf("announce: %w", err))
	}
	if p.Hunt, err = s.hunt(); err != nil {
		errs = append(errs, fmt.Errorf("timers: %w", err))
	}
	return p, errors.Join(errs...)
}

func (s *Settings) hunt() (hunt.Config, error) {
	timers := s.Timers
	if timers == "auto" {
		if timers = "rfc"; s.Compat == "rsplib" {
			timers = "rsplib"
		}
	}
	presets := map[string]func() hunt.Config{"rfc": hunt.Default, "rsplib": hunt.RSPLib, "fast": hunt.Fast}
	preset, ok := presets[timers]
	if !ok {
		return hunt.Config{}, fmt.Errorf("%q is none of auto, rfc, rsplib, fast", timers)
	}
	cfg := preset()
	cfg.Ordered = s.Compat == "rsplib"
	cfg.Jitter = jitter
	return cfg, nil
}

func (s *Settings) groups() ([]netip.AddrPort, error) {
	switch {
	case s.Announce == "off":
		return nil, nil
	case s.Announce == "auto" && s.Compat == "rsplib":
		return mcast.RsplibGroups(), nil
	case s.Announce == "auto":
		return mcast.RFCGroups(mcast.SiteLocal), nil
	}
	group, err := netip.ParseAddrPort(s.Announce)
	if err != nil {
		var addr netip.Addr
		addr, err = netip.ParseAddr(s.Announce)
		group = netip.AddrPortFrom(addr, mcast.Port)
	}
	if err != nil || !group.Addr().IsMulticast() {
		return nil, fmt.Errorf("%q is neither off nor auto nor a multicast group", s.Announce)
	}
	return []netip.AddrPort{group}, nil
}

// Open joins the multicast groups, if there are any; end leaves them.
func (p *Parsed) Open(ctx context.Context, log logrus.FieldLogger) (announcers []transport.Announcer, end func() error, err error) {
	if len(p.Groups) == 0 {
		return nil, func() error { return nil }, nil
	}
	a, err := mcast.Open(ctx, mcast.Config{
		Groups: p.Groups, Interfaces: p.Interfaces,
		Report: func(err error) { log.WithError(err).Warn("registrar announcements") },
	})
	if err != nil {
		return nil, nil, fmt.Errorf("announce: %w", err)
	}
	return []transport.Announcer{a}, a.Close, nil
}
