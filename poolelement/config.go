package poolelement

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/hunt"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// Compat selects the behaviour towards registrars that depart from the RFCs.
type Compat int

// Compatibility modes.
const (
	// RFC follows RFC 5352 and 5354.
	RFC Compat = iota
	// Rsplib suits rsplib's rspregistrar: the registration life is sent in
	// milliseconds, pool handles have at most 32 octets, an Operation Error
	// in a response is a refusal with or without the R bit, refused
	// registrations are repeated at each re-registration interval, and an
	// element that was taken over re-registers at once. Life and Reregister
	// default to rsplib's 90 s and 30 s, Hunt to hunt.RSPLib.
	Rsplib
)

// maxHandle leaves room for a Pool Element parameter of 64 IPv6 addresses in a
// REGISTRATION.
const maxHandle = 32768

// Config describes one pool element. A zero field means its default.
type Config struct {
	// Handle names the pool to join. 1 to 32768 octets, 32 with Rsplib. No
	// default.
	Handle param.PoolHandle
	// ID is the PE identifier. 0, the default, draws a random one for each
	// New, and another one when a registrar finds it in use.
	ID param.PEID
	// User is where pool users reach the service. Without Addrs the element
	// registers the addresses of its association to the registrar; those
	// given must be among them, or the registrar refuses them (RFC 5352,
	// section 2.2.1). Loopback addresses are left out towards registrars on
	// other hosts. No default.
	User param.Transport
	// Policy is the pool member selection policy to register with; all
	// elements of a pool need the same type. Default Round Robin.
	Policy param.Policy
	// Life is the registration life in seconds, or param.InfiniteLife. A
	// longer life means fewer messages, and a dead element that stays longer
	// where nothing else finds it. Default 300, with Rsplib 90.
	Life param.Life
	// Reregister is the time from an accepted registration to its
	// repetition, T4. It must be shorter than Life. Default 600 s or 20 s
	// less than Life, what is shorter, and half of Life if that is below
	// 25 s (AMB-30); with Rsplib a third of Life.
	Reregister time.Duration

	// Registrars are the registrars to look for at first and always: names
	// may have several addresses. Needed where Announcer is nil.
	Registrars []transport.Endpoint
	// Announcers receive the announcements of registrars. The element
	// doesn't close them.
	Announcers []transport.Announcer
	// Networks are the networks to reach registrars by. No default.
	Networks *transport.Networks
	// Control is where registrars reach the element, to take it over for
	// one: the host and port to listen on for each network. Its network is
	// not used, an empty Hosts means all addresses, and port 0 a free one.
	// On SCTP the association to the home registrar leaves from this port
	// as well.
	Control transport.Endpoint
	// Hunt sets the timers T2, T3, T5 and T7, MAX-REG-ATTEMPT and the bounds
	// of the hunt for registrars. NoRegistrar does not count here: an element
	// looks for a registrar for ever. Default hunt.Default, with Rsplib
	// hunt.RSPLib, both with random order and a jitter of 0.2.
	Hunt hunt.Config
	// Transport adjusts the sockets. ReusePort is always set.
	Transport transport.Options

	// GiveUp makes the element stop when Hunt.MaxRegAttempts registrations in
	// a row stayed without answer, as RFC 5352, section 3.1 asks, or when its
	// registration has expired: only SetServing sets it going again. Default
	// off: it reports the failure and goes on after a pause.
	GiveUp bool
	// RetryMin and RetryMax bound that pause, which doubles each time; a
	// random half of it is left out. Default 1 s and 60 s.
	RetryMin, RetryMax time.Duration
	// RetryRejected is the pause before a registration that a registrar has
	// refused is tried again unchanged, in the hope that somebody has
	// corrected the pool. Default 0, never, as RFC 5352 demands; with Rsplib
	// Reregister.
	RetryRejected time.Duration
	// Silence is how many times the longest time between two keep-alives of
	// the home registrar may pass without one before the element registers
	// again, in case the registrar has removed it or is gone. Default 3;
	// negative: never.
	Silence int
	// StopTimeout bounds the deregistration at the end of Run. Default 5 s.
	StopTimeout time.Duration

	// LoadStep is the smallest change of the load, as a share of full load,
	// that is reported before the next re-registration. 0 to 1, default
	// 0.02. A smaller one makes selection more exact and costs messages.
	LoadStep float64
	// LoadInterval is the shortest time between two registrations that
	// report nothing but load. Default 1 s.
	LoadInterval time.Duration

	// Withdrawn makes the element start outside of its pool, until
	// SetServing(true).
	Withdrawn bool
	// Compat selects other behaviour for registrars of another make.
	Compat Compat
	// KeepAlive, if set, gets the answer to each keep-alive of a registrar as
	// a function, to be called from where the service itself works, so that a
	// service that hangs is found: at once, or late when it goes on again, from
	// any goroutine. Until then the element does not repeat its registration.
	// KeepAlive is called by the element's own goroutine and must not block.
	// Default: the element's own goroutine answers.
	KeepAlive func(answer func())
	// OnEvent, if set, is called for each event, in order, by the element's
	// own goroutine: it must not block, and not call Stop.
	OnEvent func(Event)
	// Log gets what OnEvent gets and, at level debug, what was ignored.
	// Default: nothing is logged.
	Log logrus.FieldLogger
}

// defaultT4 is the upper limit of T4 (RFC 5352, section 7.1).
const defaultT4 = 600 * time.Second

// withDefaults returns a copy with defaults filled in.
func (c Config) withDefaults() Config {
	life, timers := param.Life(300), hunt.Default()
	if c.Compat == Rsplib {
		life, timers = 90, hunt.RSPLib()
	}
	if c.Hunt.T2 == 0 && c.Hunt.T5 == 0 {
		timers.Rand = rand.Float64
		timers.Jitter = 0.2
		c.Hunt = timers
	}
	c.Hunt.NoRegistrar = -1
	c.Hunt.Ordered = c.Hunt.Ordered || c.Compat == Rsplib
	c.Policy.Type = cmp.Or(c.Policy.Type, param.RoundRobin)
	c.Life = cmp.Or(c.Life, life)
	c.RetryMin = cmp.Or(c.RetryMin, time.Second)
	c.RetryMax = cmp.Or(c.RetryMax, 60*time.Second)
	c.Silence = cmp.Or(c.Silence, 3)
	c.StopTimeout = cmp.Or(c.StopTimeout, 5*time.Second)
	c.LoadStep = cmp.Or(c.LoadStep, 0.02)
	c.LoadInterval = cmp.Or(c.LoadInterval, time.Second)
	if c.Compat == Rsplib {
		c.RetryRejected = cmp.Or(c.RetryRejected, c.reregisterAfter(c.Life))
	}
	c.Control.Network = transport.Auto
	if len(c.Control.Hosts) == 0 {
		c.Control.Hosts = []string{""}
	}
	c.Transport.ReusePort = true
	if c.Log == nil {
		log := logrus.New()
		log.SetOutput(io.Discard)
		c.Log = log
	}
	return c
}

// Validate names everything that is wrong with the configuration.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	limit := maxHandle
	if c.Compat == Rsplib {
		limit = param.RsplibMaxHandle
	}
	if len(c.Handle) == 0 || len(c.Handle) > limit {
		wrong("Handle has %d octets, must have 1 to %d", len(c.Handle), limit)
	}
	if c.User.IsZero() {
		wrong("User is missing")
	} else if c.User.Port == 0 && c.User.Type != param.TypeOpaqueTransport {
		wrong("User has port 0")
	}
	if c.User.Use != param.DataOnly && c.User.Type != param.TypeSCTPTransport {
		wrong("User has a control channel, only SCTP can")
	}
	if c.Life < 1 && c.Life != param.InfiniteLife {
		wrong("Life is %d s, must be positive or infinite", c.Life)
	}
	if c.Compat == Rsplib && c.Life > math.MaxInt32/1000 {
		wrong("Life is %d s, must be at most %d s for rsplib", c.Life, math.MaxInt32/1000)
	}
	if life, finite := c.Life.Duration(); finite && c.Reregister >= life && life > 0 {
		wrong("Reregister is %v, must be shorter than Life, which is %v", c.Reregister, life)
	}
	if c.Networks == nil {
		wrong("Networks is missing")
	}
	if len(c.Registrars) == 0 && len(c.Announcers) == 0 {
		wrong("neither Registrars nor Announcers given, no registrar can be found")
	}
	for _, f := range []struct {
		name string
		d    time.Duration
	}{
		{"Reregister", c.Reregister}, {"RetryMin", c.RetryMin},
		{"RetryRejected", c.RetryRejected}, {"StopTimeout", c.StopTimeout}, {"LoadInterval", c.LoadInterval},
	} {
		if f.d < 0 {
			wrong("%s is %v, must not be negative", f.name, f.d)
		}
	}
	if c.RetryMax < c.RetryMin {
		wrong("RetryMax is %v, must be at least RetryMin, which is %v", c.RetryMax, c.RetryMin)
	}
	if !(c.LoadStep >= 0 && c.LoadStep <= 1) {
		wrong("LoadStep is %v, must be 0 to 1", c.LoadStep)
	}
	if err := c.Hunt.Validate(); err != nil {
		wrong("Hunt: %w", err)
	}
	return errors.Join(errs...)
}

// reregisterAfter returns T4 for a registration of this life (AMB-30).
func (c *Config) reregisterAfter(l param.Life) time.Duration {
	life, finite := l.Duration()
	switch {
	case c.Reregister > 0 && (!finite || c.Reregister < life):
		return c.Reregister
	case !finite:
		return defaultT4
	case c.Compat == Rsplib:
		return life / 3
	case life < 25*time.Second:
		return life / 2
	}
	return min(defaultT4, life-20*time.Second)
}

// wireLife returns the life as it is sent.
func (c *Config) wireLife(l param.Life) param.Life {
	if c.Compat == Rsplib && l != param.InfiniteLife {
		return l * 1000
	}
	return l
}

// loadStep returns LoadStep on the load scale.
func (c *Config) loadStep() uint32 { return max(LoadOf(c.LoadStep), 1) }

// LoadOf returns a load of 0 to 1 on the scale of RFC 5356; what is outside, NaN
// included, counts as the nearest end.
func LoadOf(share float64) uint32 {
	switch {
	case !(share > 0):
		return 0
	case share >= 1:
		return param.MaxLoad
	}
	return uint32(math.Round(share * float64(param.MaxLoad)))
}
