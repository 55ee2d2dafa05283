// Package registrars has the settings by which pool elements and pool users find
// their registrars, and those that registrars share with them.
package registrars

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/transport"
	"rserpool/asap/transport/mcast"
	"rserpool/cmd/internal/cli"
)

// Settings are the texts of the flags.
type Settings struct {
	Registrars         []string
	Announce           string
	AnnounceInterfaces []string
	Compat             cli.Compat
	Timers             string
}

// Declare declares the flags.
func (s *Settings) Declare(fs *pflag.FlagSet) {
	// An array, not a slice: commas separate the hosts of one endpoint.
	fs.StringArrayVar(&s.Registrars, "registrar", nil, "registrar, [sctp://|tcp://]HOST[,HOST...][:PORT]; repeatable; names may have several addresses")
	fs.StringVar(&s.Announce, "announce", "off", "multicast groups to learn of registrars from: "+GroupsUsage)
	fs.StringSliceVar(&s.AnnounceInterfaces, "announce-interface", nil, "network interface to listen on for announcements; repeatable (default: all with multicast)")
	cli.CompatVar(fs, &s.Compat, "suit another make of registrar")
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
	p := Parsed{Interfaces: s.AnnounceInterfaces, RSPLib: s.Compat == cli.CompatRsplib}
	for _, text := range s.Registrars {
		e, err := transport.ParseEndpoint(text, transport.Auto, asap.Port)
		if err != nil {
			errs = append(errs, fmt.Errorf("registrar: %w", err))
		}
		p.Endpoints = append(p.Endpoints, e)
	}
	if len(s.Registrars) == 0 && s.Announce == "off" {
		errs = append(errs, errors.New("registrar: which one? Give --registrar or --announce"))
	}
	var err error
	if p.Groups, err = Groups(s.Announce, s.Compat); err != nil {
		errs = append(errs, fmt.Errorf("announce: %w", err))
	}
	if p.Hunt, err = s.hunt(); err != nil {
		errs = append(errs, fmt.Errorf("timers: %w", err))
	}
	return p, errors.Join(errs...)
}

func (s *Settings) hunt() (hunt.Config, error) {
	cfg, err := Preset(s.Timers, s.Compat, hunt.Default, hunt.RSPLib, hunt.Fast)
	if err != nil {
		return cfg, err
	}
	cfg.Ordered = s.Compat == cli.CompatRsplib
	cfg.Jitter = jitter
	return cfg, nil
}

// Preset reads the name of a preset of timers: rfc, rsplib, fast, or auto for the
// one that suits compat.
func Preset[T any](name string, compat cli.Compat, rfc, rsplib, fast func() T) (T, error) {
	switch {
	case name == "rsplib", name == "auto" && compat == cli.CompatRsplib:
		return rsplib(), nil
	case name == "rfc", name == "auto":
		return rfc(), nil
	case name == "fast":
		return fast(), nil
	}
	var none T
	return none, fmt.Errorf("%q is none of auto, rfc, rsplib, fast", name)
}

// GroupsUsage says what Groups reads.
const GroupsUsage = "off, auto (the RFC's, or rsplib's with --compat rsplib), or GROUP[:PORT][,GROUP[:PORT]...]"

// Groups reads the setting of multicast groups; there are none when it is off.
func Groups(text string, compat cli.Compat) ([]netip.AddrPort, error) {
	auto := mcast.RFCGroups(mcast.SiteLocal)
	if compat == cli.CompatRsplib {
		auto = mcast.RsplibGroups()
	}
	return ReadGroups(text, auto, mcast.Port)
}

// ReadGroups is Groups with what auto and a missing port stand for.
func ReadGroups(text string, auto []netip.AddrPort, port uint16) ([]netip.AddrPort, error) {
	switch text {
	case "off":
		return nil, nil
	case "auto":
		return auto, nil
	}
	var groups []netip.AddrPort
	for part := range strings.SplitSeq(text, ",") {
		group, err := netip.ParseAddrPort(part)
		if err != nil {
			var addr netip.Addr
			addr, err = netip.ParseAddr(part)
			group = netip.AddrPortFrom(addr, port)
		}
		if err != nil || !group.Addr().IsMulticast() {
			return nil, fmt.Errorf("%q is neither off nor auto nor a multicast group", part)
		}
		groups = append(groups, group)
	}
	return groups, nil
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
