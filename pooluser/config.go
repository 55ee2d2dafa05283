// Package pooluser is the pool user's side of RSerPool: it resolves pool handles
// through a registrar, keeps the answers, selects elements by their pool's
// policy, connects to them and goes on to the next when one fails (RFC 5352,
// sections 3.3, 3.5 and 6; RFC 5356).
//
// A Resolver knows the pools. Its Dial connects to an element, and what happens to
// that connection is the caller's business. Its Open and OpenStream begin sessions,
// which go on with another element, and with the state that the last one left, when
// theirs fails (RFC 5352, sections 3.8 and 3.9; docs/sessions.md).
package pooluser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/hunt/huntnet"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/selection"
)

// defaultStale is the default of Config.Stale.
const defaultStale = 30 * time.Second

// Config describes a Resolver. Networks and either Registrars or Announcers are
// required; a zero field otherwise means its default.
type Config struct {
	// Registrars are the static registrars; a name with several addresses
	// stands for one registrar per address.
	Registrars []transport.Endpoint
	// Announcers bring in registrars' announcements. The caller closes them
	// after Stop.
	Announcers []transport.Announcer
	// Networks are the networks to reach registrars and SCTP elements by.
	Networks *transport.Networks
	// Options are the options of sockets to registrars and SCTP elements.
	Options transport.Options
	// Hunt sets the timers towards registrars. Default hunt.Default(), with
	// RSPLib and T1 0 hunt.RSPLib().
	Hunt hunt.Config
	// Via, if set, is whose registrar to ask, such as a *poolelement.Element
	// of the same process, over its association. Registrars, Announcers and
	// Hunt have no effect then, and there is no Subscribe. A resolution waits
	// for a registrar as long as its ctx allows.
	Via Registrar

	// Stale is how long an answer is used without asking again:
	// stale_cache_value. Longer saves messages, shorter sees changes sooner.
	// Default 30 s (AMB-17). Negative: no cache, each resolution asks.
	Stale time.Duration
	// Ahead is how long before it is stale an answer that was used is
	// renewed, so that a pool in constant use always has a fresh one: a tenth
	// more requests with the default. An answer that was not used after it
	// came is left to go stale. Must be below Stale. Default: a tenth of
	// Stale; negative: none.
	Ahead time.Duration
	// StaleWait is how long a resolution waits for a new answer when the one
	// at hand is older than twice Stale and a registrar is connected; then it
	// uses the old one. Younger ones are used at once and renewed beside it.
	// Default 500 ms.
	StaleWait time.Duration
	// Negative is how long 'unknown pool' and other refusals are remembered.
	// Default 1 s.
	Negative time.Duration
	// Grace is how long after a change of the registrar 'unknown pool' does
	// not replace an answer from the former one: a registrar that has just
	// started learns of its elements only when they have found it. Default
	// 60 s, the longest pause in their hunt; negative: none.
	Grace time.Duration
	// MaxPools bounds the pools in the cache; the one unused for longest
	// goes. Default 1024.
	MaxPools int
	// Subscribe asks registrars to send changes of the pools in the cache
	// unasked (the S bit). Default off, and impossible with RSPLib.
	Subscribe bool

	// MaxTries bounds the elements that one Dial tries. Default 8.
	MaxTries int
	// DialTimeout bounds each try. Default 5 s.
	DialTimeout time.Duration
	// RetryPause is the pause before elements that have all failed are
	// selected again, a random half of it left out, and how long one that
	// failed is avoided although the registrar lists it anew. Default 250 ms.
	RetryPause time.Duration
	// PPID is the payload protocol identifier of what byte streams send to
	// SCTP elements, as the pool's elements have it; not ASAP's. Default 0.
	PPID uint32
	// DialStream connects to TCP elements. Default: net.Dialer.
	DialStream func(ctx context.Context, network, address string) (net.Conn, error)

	// Pick returns what selects elements of a pool, such as
	// selection.PickPeakEWMA, in place of what the pool's policy says; nil
	// for that. It must not call the Resolver. Default: nil for all pools.
	Pick func(pool param.PoolHandle, policy param.PolicyType) func(*rand.Rand) selection.Picker

	// OnOutage is told why when the Resolver begins to go on with the last
	// known answers because no registrar gives new ones, and nil when one
	// answers again; both are logged as well. It must not block or call the
	// Resolver. Default: nobody.
	OnOutage func(why error)

	// RSPLib makes it get on with rsplib's registrars: their timers, pool
	// handles of at most 32 octets, their Handle Resolution option, no
	// subscriptions.
	RSPLib bool
	// Rand is the random source of policies and pauses; it is used by one
	// goroutine at a time. Default: seeded at random.
	Rand *rand.Rand
	// Log gets the log lines. Default: none.
	Log logrus.FieldLogger
}

// Registrar is what a Resolver needs of whoever keeps a home registrar: that of
// *huntnet.Client and *poolelement.Element.
type Registrar interface {
	// Do makes a request and waits for the answer.
	Do(ctx context.Context, request asap.Message) (asap.Message, error)
	// Send sends a message that has no answer.
	Send(ctx context.Context, msg asap.Message) error
	// Home returns the home registrar, and false while there is none.
	Home() (huntnet.Peer, bool)
}

func (cfg Config) withDefaults() Config {
	for _, f := range []struct {
		field *time.Duration
		def   time.Duration
	}{
		{&cfg.Stale, defaultStale}, {&cfg.StaleWait, 500 * time.Millisecond}, {&cfg.Negative, time.Second},
		{&cfg.Grace, 60 * time.Second}, {&cfg.DialTimeout, 5 * time.Second}, {&cfg.RetryPause, 250 * time.Millisecond},
	} {
		if *f.field == 0 {
			*f.field = f.def
		}
	}
	if cfg.Ahead == 0 {
		cfg.Ahead = cfg.Stale / 10
	}
	if cfg.MaxPools == 0 {
		cfg.MaxPools = 1024
	}
	if cfg.MaxTries == 0 {
		cfg.MaxTries = 8
	}
	if cfg.DialStream == nil {
		cfg.DialStream = new(net.Dialer).DialContext
	}
	if cfg.RSPLib && cfg.Hunt.T1 == 0 {
		cfg.Hunt = hunt.RSPLib()
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	if cfg.Log == nil {
		quiet := logrus.New()
		quiet.SetOutput(io.Discard)
		cfg.Log = quiet
	}
	return cfg
}

// Validate names everything that is wrong with the configuration.
func (cfg Config) Validate() error {
	var errs []error
	if cfg.Networks == nil {
		errs = append(errs, errors.New("no networks"))
	}
	if len(cfg.Registrars)+len(cfg.Announcers) == 0 && cfg.Via == nil {
		errs = append(errs, errors.New("neither registrars nor announcements: no registrar can be found"))
	}
	for _, f := range []struct {
		name string
		bad  bool
		v    any
	}{
		{"StaleWait", cfg.StaleWait < 0, cfg.StaleWait}, {"Negative", cfg.Negative < 0, cfg.Negative},
		{"DialTimeout", cfg.DialTimeout < 0, cfg.DialTimeout}, {"RetryPause", cfg.RetryPause < 0, cfg.RetryPause},
		{"MaxPools", cfg.MaxPools < 0, cfg.MaxPools}, {"MaxTries", cfg.MaxTries < 0, cfg.MaxTries},
	} {
		if f.bad {
			errs = append(errs, fmt.Errorf("%s is %v, must not be negative", f.name, f.v))
		}
	}
	if stale := cfg.withDefaults().Stale; stale > 0 && cfg.Ahead >= stale {
		errs = append(errs, fmt.Errorf("Ahead is %v, must be below Stale, %v", cfg.Ahead, stale))
	}
	if cfg.PPID == transport.PPIDASAP {
		errs = append(errs, fmt.Errorf("PPID is %d, which belongs to ASAP (RFC 5352, section 5)", cfg.PPID))
	}
	if cfg.RSPLib && cfg.Subscribe {
		errs = append(errs, errors.New("Subscribe: rsplib's registrars send no updates"))
	}
	if cfg.Via != nil && cfg.Subscribe {
		errs = append(errs, errors.New("Subscribe: there are no updates with Via"))
	}
	return errors.Join(append(errs, cfg.Hunt.Validate())...)
}
