package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/mcast"
	"rserpool/asap/transport/sctp"
	"rserpool/asap/transport/tcp"
	"rserpool/cmd/internal/cli"
	"rserpool/cmd/internal/registrars"
	"rserpool/enrp"
	"rserpool/enrp/peer"
	"rserpool/enrp/ring"
	"rserpool/internal/authority"
	"rserpool/registrar"
	"rserpool/registrar/admin"
	"rserpool/registrar/replica"
)

// ringPort is where members of a ring listen unless told otherwise.
const ringPort = 9903

// clusterSettings are the texts of the flags about other registrars: the ring, the
// peers outside it, and who may be one.
type clusterSettings struct {
	Cluster           string
	RingListen, Peers []string
	RingAdvertise     []string
	RingTimers        string
	Timers            ring.Timers
	JoinWait, MaxSkew time.Duration
	RingSize          int
	StateDir, Ack     string
	CA, Cert, Key     string
	Insecure          bool
	ENRPPeers         []string
	ENRPAnnounce      string
	ENRPTimers        string
}

func (c *clusterSettings) declare(fs *pflag.FlagSet) {
	fs.StringVar(&c.Cluster, "cluster", registrar.DefaultCluster, "name of the ring, and in certificates; members of others are refused")
	fs.StringArrayVar(&c.RingListen, "ring-listen", []string{off}, "where members of the ring reach this one: auto, sctp, tcp, or an address like those of --listen (port 9903), or off; repeatable. Needs --id, --state-dir or a certificate that names an identifier")
	fs.StringArrayVar(&c.Peers, "peer", nil, "where another member of the ring may be, likewise; a name stands for one member per address; own addresses are passed over; repeatable")
	fs.StringArrayVar(&c.RingAdvertise, "ring-advertise", nil, "where members are told to reach this one; repeatable (default: where it listens)")
	fs.StringVar(&c.RingTimers, "ring-timers", "lan", "timers of the ring, the same at all members: lan (a dead member is out within 1 s), wan (within 6 s), test; single values below win")
	for _, t := range []struct {
		p           *time.Duration
		name, usage string
	}{
		{&c.Timers.HopRetry, "ring-hop-retry", "time after which an unacknowledged token is sent again"},
		{&c.Timers.HopTimeout, "ring-hop-timeout", "time after which a member that does not acknowledge is left out; one that is slow for less stays: on virtual or overloaded machines twice the longest hop that the log warns of"},
		{&c.Timers.IdleRotation, "ring-idle-rotation", "time of one round of the token without traffic"},
		{&c.Timers.CollectWait, "ring-collect-wait", "time for answers when the members change"},
		{&c.Timers.LostWait, "ring-lost-wait", "patience after a lost connection"},
		{&c.Timers.ProbeInterval, "ring-probe-interval", "time between looks for members outside the view"},
		{&c.Timers.FlapWindow, "ring-flap-window", "time within which a second drop-out makes a member unsteady"},
		{&c.Timers.HoldOff, "ring-hold-off", "time for which an unsteady member is held off, doubled each time"},
		{&c.Timers.HoldOffMax, "ring-hold-off-max", "the longest such time"},
		{&c.Timers.Lease, "ring-lease", "time that a lock's holder may go on without proof, with --ring-size"},
	} {
		fs.DurationVar(t.p, t.name, 0, t.usage+" (0: by --ring-timers)")
	}
	fs.DurationVar(&c.JoinWait, "ring-join-wait", 0, "time a starting member waits for its peers before it serves alone (0: six times --ring-probe-interval)")
	fs.DurationVar(&c.MaxSkew, "ring-max-skew", 500*time.Millisecond, "difference between the clocks of two members beyond which the log warns: among members that were parted the later registration wins only as far as their clocks agree")
	fs.IntVar(&c.RingSize, "ring-size", 0, "number of configured members, for locks that only more than half of them grant; needs --state-dir (0: no such locks)")
	fs.StringVar(&c.StateDir, "state-dir", "", "folder for what is kept over restarts: the identifier, and with --ring-size fences")
	fs.StringVar(&c.Ack, "ack", "stable", "when a registration is acknowledged: stable (all members of the view have it), min-members=N (and they are so many), local (at once)")
	fs.StringVar(&c.CA, "tls-ca", "", "file with the certificates of the cluster's authority (PEM); with the two below registrars speak TLS to each other")
	fs.StringVar(&c.Cert, "tls-cert", "", "file with this registrar's certificate; read again when it changes")
	fs.StringVar(&c.Key, "tls-key", "", "file with its private key")
	fs.BoolVar(&c.Insecure, "insecure", false, "let everybody who reaches them use the ring and ENRP ports, without certificates; with certificates the ENRP port only, for registrars that know no TLS")
	fs.StringArrayVar(&c.ENRPPeers, "enrp-peer", nil, "registrar outside the ring to download the handlespace from and to peer with by RFC 5353, likewise (port 9901); repeatable")
	fs.StringVar(&c.ENRPTimers, "enrp-timers", "auto", "when registrars outside the ring are dead: auto (as --compat says), rfc (silent for 66 s), rsplib (10 s), fast (4 s); all of a scope should have the same")
	fs.StringVar(&c.ENRPAnnounce, "enrp-announce", off, "announce presence to registrars outside the ring by multicast: off, auto, or GROUP[:PORT],...; only with --compat rsplib")
}

// secure reports whether registrars speak TLS to each other.
func (c *clusterSettings) secure() bool { return c.CA != "" || c.Cert != "" || c.Key != "" }

// identityFile is where the identifier is kept, in the folder for the state.
const identityFile = "registrar-id"

// identity returns the identifier to use, 0 for a random one: the one given, else the
// one that the folder for the state has, else the one that the certificate names.
// Members of a ring keep theirs: if keep says so one is made in the folder.
func (c *clusterSettings) identity(id string, named []param.RegistrarID, ringOn, keep bool) (param.RegistrarID, error) {
	found, err := c.configured(id, named, ringOn, keep)
	if err == nil && found != 0 {
		if err = transport.CheckRegistrar(named, found); err != nil {
			err = fmt.Errorf("id: %s: %w", c.Cert, err)
		}
	}
	return found, err
}

func (c *clusterSettings) configured(id string, named []param.RegistrarID, ringOn, keep bool) (param.RegistrarID, error) {
	if id != "" {
		n, err := admin.ParseID(id)
		if err != nil {
			return 0, fmt.Errorf("id: %w", err)
		}
		return param.RegistrarID(n), nil
	}
	path := filepath.Join(c.StateDir, identityFile)
	if ringOn && c.StateDir != "" {
		text, err := os.ReadFile(path)
		if err == nil {
			n, err := admin.ParseID(strings.TrimSpace(string(text)))
			if err != nil {
				return 0, fmt.Errorf("%s: %w", path, err)
			}
			return param.RegistrarID(n), nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return 0, fmt.Errorf("state-dir: %w", err)
		}
	}
	switch {
	case len(named) > 0:
		return named[0], nil
	case !ringOn:
		return 0, nil
	case c.StateDir == "":
		return 0, errors.New("ring-listen: a member of a ring keeps its identifier over restarts: give it one with --id, a folder to keep it in with --state-dir, or a certificate that names it")
	case !keep:
		if _, err := os.Stat(c.StateDir); err != nil {
			return 0, fmt.Errorf("state-dir: %w", err)
		}
		return unknown, nil // one will be made
	}
	fresh := registrar.RandomID()
	return fresh, keepIdentity(path, fresh)
}

// keepIdentity writes the file in one step.
func keepIdentity(path string, id param.RegistrarID) error {
	f, err := os.CreateTemp(filepath.Dir(path), identityFile)
	if err != nil {
		return fmt.Errorf("state-dir: %w", err)
	}
	_, err = fmt.Fprintln(f, id)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("state-dir: %w", err), os.Remove(f.Name()))
	}
	return nil
}

// links are the networks of this program, and who is let in by which.
type links struct {
	plain, ring, enrp *transport.Networks
	credentials       *tcp.Credentials // nil without TLS
	refusals          *registrar.Refusals
}

const noTLSOverSCTP = "TLS over SCTP is not available; use tcp://..."

// links opens the certificates and makes the networks.
func (c *clusterSettings) links(log logrus.FieldLogger) (*links, error) {
	l := &links{plain: transport.NewNetworks(sctp.New(), tcp.New())}
	l.ring, l.enrp = l.plain, l.plain
	if !c.secure() {
		return l, nil
	}
	if c.CA == "" || c.Cert == "" || c.Key == "" {
		return l, errors.New("tls: --tls-ca, --tls-cert and --tls-key go together")
	}
	if err := authority.CheckCluster(c.Cluster); err != nil {
		return l, fmt.Errorf("cluster: %w", err)
	}
	var err error
	if l.credentials, err = tcp.LoadCredentials(tcp.Files{CA: c.CA, Cert: c.Cert, Key: c.Key}, c.Cluster); err != nil {
		return l, fmt.Errorf("tls: %w", err)
	}
	l.credentials.Changed = func(err error) {
		if err != nil {
			log.WithError(err).Error("changed certificates can't be used, the former ones stay")
			return
		}
		l.tell(log, "changed certificates read")
	}
	l.refusals = registrar.NewRefusals(log)
	secured := transport.NewNetworks(transport.Without(transport.SCTP, noTLSOverSCTP), tcp.New(tcp.WithTLS(tcp.TLS{
		Credentials: l.credentials,
		Failed: func(remote netip.AddrPort, err error) {
			l.refusals.Refused(remote, tcp.HandshakeReason(err), err)
		},
	})))
	l.ring = secured
	if !c.Insecure {
		l.enrp = secured
	}
	return l, nil
}

// named returns the registrars that this one's certificate names.
func (l *links) named() []param.RegistrarID {
	if l.credentials == nil {
		return nil
	}
	return l.credentials.Registrars()
}

// soon is when the end of a certificate is worth a warning.
const soon = 30 * 24 * time.Hour

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// tell logs a text and, with certificates, until when the one in use is valid, and a
// warning if that is soon.
func (l *links) tell(log logrus.FieldLogger, text string) {
	if l.credentials == nil {
		log.Info(text)
		return
	}
	until := l.credentials.Expires()
	log = log.WithField("valid_until", day(until))
	log.Info(text)
	if time.Until(until) < soon {
		log.Warn("the certificate ends soon: see 'rspd ca issue --help'")
	}
}

// announceSafety says in the log who may speak on the ports of registrars, where
// there are such.
func (c *clusterSettings) announceSafety(l *links, cfg registrar.Config, log logrus.FieldLogger) {
	if len(cfg.ENRP) == 0 && !cfg.Ring.On() {
		return
	}
	if l.credentials != nil {
		fields := logrus.Fields{"cluster": c.Cluster}
		if named := l.named(); len(named) > 0 {
			fields["certificate_of"] = named
		}
		l.tell(log.WithFields(fields), "registrars speak TLS to each other")
	}
	switch {
	case c.Insecure && l.credentials != nil:
		if len(cfg.ENRP) > 0 {
			log.Warn("insecure: the ENRP port is open to everybody who reaches it")
		}
	case c.Insecure:
		log.Warn("insecure: the ports of registrars are open to everybody who reaches them")
	case l.credentials == nil:
		log.Info("without certificates (--tls-cert) the ports of registrars are on loopback only; --insecure lifts this")
	}
}

// configure adds to the registrar's configuration what is about other registrars.
func (c *clusterSettings) configure(cfg *registrar.Config, l *links, s *settings, log logrus.FieldLogger) error {
	var errs []error
	fail := func(flag string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", flag, err))
		}
	}
	var err error
	read := func(flag string, texts []string, port uint16, secured bool) []transport.Endpoint {
		found, err := endpoints(texts, port)
		if err == nil {
			found, err = c.restrict(found, secured)
		}
		fail(flag, err)
		return found
	}
	overTLS := c.secure() && !c.Insecure
	cfg.ENRP = read("enrp-listen", s.ENRPListen, enrp.Port, overTLS)
	cfg.Peering = registrar.PeeringConfig{Mentors: read("enrp-peer", c.ENRPPeers, enrp.Port, overTLS), Networks: l.enrp}
	cfg.Peering.Timers, err = registrars.Preset(c.ENRPTimers, s.Compat, peer.RFC, peer.Rsplib, peer.Fast)
	fail("enrp-timers", err)
	cfg.Refusals = l.refusals
	if l.credentials != nil {
		cfg.CertificateExpiry = l.credentials.Expires
	}
	fail("enrp-announce", c.announce(cfg, s, log))
	cfg.Ring = registrar.RingConfig{
		Cluster: c.Cluster, Size: c.RingSize, JoinWait: c.JoinWait, MaxSkew: c.MaxSkew, Networks: l.ring,
		Listen: read("ring-listen", c.RingListen, ringPort, c.secure()),
		Peers:  read("peer", c.Peers, ringPort, c.secure()),
	}
	var advertise []transport.Endpoint
	advertise, err = endpoints(c.RingAdvertise, ringPort)
	fail("ring-advertise", err)
	cfg.Ring.Advertise = advertise
	if c.RingSize > 0 {
		cfg.Ring.StateDir = c.StateDir
	}
	cfg.Ring.Ack, err = parseAck(c.Ack)
	fail("ack", err)
	cfg.Ring.Timers, err = c.ringTimers()
	fail("ring-timers", err)
	if len(c.Peers) > 0 && !cfg.Ring.On() && len(errs) == 0 {
		fail("peer", errors.New("a peer is a member of the ring, and this one is in none: give --ring-listen, or mean --enrp-peer"))
	}
	return errors.Join(errs...)
}

// restrict keeps the ports of registrars, when nobody has to show a certificate,
// to this host: unspecified addresses become loopback ones, others are refused.
func (c *clusterSettings) restrict(endpoints []transport.Endpoint, secured bool) ([]transport.Endpoint, error) {
	var out []transport.Endpoint
	var errs []error
	for _, e := range endpoints {
		switch {
		case secured && e.Network == transport.SCTP:
			errs = append(errs, fmt.Errorf("%s: %s", e, noTLSOverSCTP))
		case secured, c.Insecure, onLoopback(e):
			out = append(out, e)
		case everywhere(e):
			for _, host := range loopback() {
				out = append(out, transport.Endpoint{Network: e.Network, Hosts: []string{host}, Port: e.Port})
			}
		default:
			errs = append(errs, fmt.Errorf("%s is not loopback: without certificates (--tls-ca, --tls-cert, --tls-key; see 'rspd ca') everybody there could act as a registrar; --insecure allows it", e))
		}
	}
	return out, errors.Join(errs...)
}

func everywhere(e transport.Endpoint) bool {
	return !slices.ContainsFunc(e.Hosts, func(host string) bool {
		addr, err := netip.ParseAddr(host)
		return host != "" && (err != nil || !addr.IsUnspecified())
	})
}

func onLoopback(e transport.Endpoint) bool {
	return !slices.ContainsFunc(e.Hosts, func(host string) bool {
		addr, err := netip.ParseAddr(host)
		return host != "localhost" && (err != nil || !addr.Unmap().IsLoopback())
	})
}

// loopback returns the loopback addresses that this machine has.
func loopback() []string {
	hosts := []string{"127.0.0.1"}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return hosts
	}
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.Equal(net.IPv6loopback) {
			return append(hosts, "::1")
		}
	}
	return hosts
}

func (c *clusterSettings) announce(cfg *registrar.Config, s *settings, log logrus.FieldLogger) error {
	groups, err := registrars.ReadGroups(c.ENRPAnnounce, mcast.RsplibENRPGroups(), enrp.Port)
	if err != nil || groups == nil {
		return err
	}
	if s.Compat != cli.CompatRsplib {
		return errors.New("presence by multicast is rsplib's: it needs --compat rsplib")
	}
	if c.secure() && !c.Insecure {
		return errors.New("who answers to it knows no TLS: it needs --insecure")
	}
	config := s.multicast(groups, log)
	cfg.Peering.Announce = []func(context.Context) (transport.Announcer, error){
		func(ctx context.Context) (transport.Announcer, error) { return mcast.Open(ctx, config) },
	}
	return config.Validate()
}

func (c *clusterSettings) ringTimers() (ring.Timers, error) {
	presets := map[string]func() ring.Timers{"lan": ring.LAN, "wan": ring.WAN, "test": ring.Test}
	preset, ok := presets[c.RingTimers]
	if !ok {
		return ring.Timers{}, fmt.Errorf("%q is none of lan, wan, test", c.RingTimers)
	}
	t := preset()
	override(&t.HopRetry, c.Timers.HopRetry)
	override(&t.HopTimeout, c.Timers.HopTimeout)
	override(&t.IdleRotation, c.Timers.IdleRotation)
	override(&t.CollectWait, c.Timers.CollectWait)
	override(&t.LostWait, c.Timers.LostWait)
	override(&t.ProbeInterval, c.Timers.ProbeInterval)
	override(&t.FlapWindow, c.Timers.FlapWindow)
	override(&t.HoldOff, c.Timers.HoldOff)
	override(&t.HoldOffMax, c.Timers.HoldOffMax)
	override(&t.Lease, c.Timers.Lease)
	return t, nil
}

// parseAck reads when registrations are acknowledged.
func parseAck(text string) (replica.Ack, error) {
	switch {
	case text == "stable":
		return replica.Ack{}, nil
	case text == "local":
		return replica.Ack{Local: true}, nil
	}
	count, ok := strings.CutPrefix(text, "min-members=")
	n, err := strconv.Atoi(count)
	if !ok || err != nil || n < 1 {
		return replica.Ack{}, fmt.Errorf("%q is none of stable, local, min-members=N with a positive N", text)
	}
	return replica.Ack{MinMembers: n}, nil
}

// reload reads the certificates again. Which files these are, and whether there
// are any, only a restart changes.
func (c *clusterSettings) reload(l *links, next clusterSettings) error {
	if next.CA != c.CA || next.Cert != c.Cert || next.Key != c.Key || next.Insecure != c.Insecure || next.Cluster != c.Cluster {
		return fmt.Errorf("cluster, certificates and insecure: %w", registrar.ErrRestart)
	}
	if l.credentials == nil {
		return nil
	}
	if err := l.credentials.Reload(); err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	return nil
}
