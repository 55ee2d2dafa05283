// Package hunt holds what pool elements and pool users do to talk to a
// registrar: the list of known registrars, the server hunt, and requests with
// their timers (RFC 5352, sections 3.6, 3.7 and 7).
//
// Machine is deterministic and does no input or output: times and messages go
// in, and what is to be dialled, sent and closed comes out as data. Package
// huntnet drives it over real networks.
package hunt

import (
	"errors"
	"fmt"
	"time"
)

// Config sets timers and limits. A zero field means its default. Presets:
// Default, Fast, RSPLib.
type Config struct {
	// T1 is how long a handle resolution waits for its response before it is
	// sent again and a hunt starts beside it. Default 15 s.
	T1 time.Duration
	// T2 and T3 are how long a registration and a deregistration wait before
	// the home registrar is given up and a hunt starts. Default 30 s.
	T2, T3 time.Duration
	// MaxRequestRetransmit is how many times a handle resolution is sent
	// again after T1 before it fails. Default 2; negative: never.
	MaxRequestRetransmit int
	// MaxRegAttempts is how many attempts a registration or deregistration
	// has in a row, over all registrars (AMB-31). Default 2.
	MaxRegAttempts int

	// T5 is the length of the first hunt round; it doubles with each round
	// that finds no registrar, up to RetranMax. Default 10 s and 60 s.
	T5, RetranMax time.Duration
	// Parallel is the number of connections that a hunt tries at a time.
	// 1 to 3, default 3 (RFC 5352, section 3.6, SH1).
	Parallel int
	// Redial is the shortest time between two attempts at one registrar; it
	// tames one that accepts connections and drops them. Default 1 s.
	Redial time.Duration
	// Jitter shortens each T5 by a random share of up to Jitter, so that
	// clients of a lost registrar don't come back in step. 0 to 0.5,
	// default 0; it needs Rand.
	Jitter float64
	// Rand returns uniformly distributed numbers in [0, 1): the order in
	// which registrars are tried, and Jitter. Default: always 0, so that
	// registrars are tried in the order given.
	Rand func() float64

	// T7 is how long an announced registrar is remembered after its last
	// announcement; it is stretched to three times the longest interval
	// between announcements of that registrar (AMB-53). Default 5 s.
	T7 time.Duration
	// MaxAnnounced bounds the transports known from announcements and
	// takeovers, and the registrars whose announcement intervals are
	// remembered. When full, further ones are ignored and counted.
	// Default 64.
	MaxAnnounced int

	// NoRegistrar is how long a request waits for a registrar before it
	// fails with ErrNoRegistrar. Default 45 s; negative: for ever.
	NoRegistrar time.Duration
	// MaxRequests bounds the requests that are waiting or outstanding. When
	// full, new ones fail with ErrTooMany. Default 1024.
	MaxRequests int
	// MaxNotices bounds the messages without answer that wait for a
	// registrar. When full, the oldest is dropped and counted. Default 64.
	MaxNotices int

	// Ordered says that registrars answer strictly in request order, as
	// rsplib's does: an ASAP_ERROR then belongs to the oldest request on its
	// connection.
	Ordered bool
}

// Default returns the timers of RFC 5352, section 7.
func Default() Config {
	return Config{
		T1: 15 * time.Second, T2: 30 * time.Second, T3: 30 * time.Second,
		MaxRequestRetransmit: 2, MaxRegAttempts: 2,
		T5: 10 * time.Second, RetranMax: 60 * time.Second, Parallel: 3, Redial: time.Second,
		T7: 5 * time.Second, MaxAnnounced: 64,
		NoRegistrar: 45 * time.Second, MaxRequests: 1024, MaxNotices: 64,
	}
}

// Fast returns sub-second timers for one host or one rack, where a registrar
// that doesn't answer within some hundred milliseconds is gone.
func Fast() Config {
	c := Default()
	c.T1, c.T2, c.T3 = 300*time.Millisecond, 500*time.Millisecond, 500*time.Millisecond
	c.T5, c.RetranMax, c.Redial = 200*time.Millisecond, 800*time.Millisecond, 50*time.Millisecond
	c.NoRegistrar = 3 * time.Second // registrars may announce themselves every second only
	return c
}

// RSPLib returns timers like those of rsplib's elements and users.
func RSPLib() Config {
	c := Default()
	c.T1, c.T2, c.T3 = 3*time.Second, 3*time.Second, 3*time.Second
	c.MaxRequestRetransmit, c.MaxRegAttempts = 1, 2
	c.T5, c.RetranMax = 7500*time.Millisecond, 15*time.Second
	c.NoRegistrar = 15 * time.Second
	c.Ordered = true
	return c
}

func (c Config) withDefaults() Config {
	d := Default()
	for _, f := range []struct{ field, def *time.Duration }{
		{&c.T1, &d.T1}, {&c.T2, &d.T2}, {&c.T3, &d.T3}, {&c.T5, &d.T5},
		{&c.RetranMax, &d.RetranMax}, {&c.Redial, &d.Redial}, {&c.T7, &d.T7}, {&c.NoRegistrar, &d.NoRegistrar},
	} {
		if *f.field == 0 {
			*f.field = *f.def
		}
	}
	for _, f := range []struct{ field, def *int }{
		{&c.MaxRequestRetransmit, &d.MaxRequestRetransmit}, {&c.MaxRegAttempts, &d.MaxRegAttempts},
		{&c.Parallel, &d.Parallel}, {&c.MaxAnnounced, &d.MaxAnnounced},
		{&c.MaxRequests, &d.MaxRequests}, {&c.MaxNotices, &d.MaxNotices},
	} {
		if *f.field == 0 {
			*f.field = *f.def
		}
	}
	if c.Rand == nil {
		c.Rand = func() float64 { return 0 }
	}
	return c
}

// Validate names everything that is wrong with the configuration.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	for _, f := range []struct {
		name string
		d    time.Duration
	}{
		{"T1", c.T1}, {"T2", c.T2}, {"T3", c.T3}, {"T5", c.T5}, {"Redial", c.Redial}, {"T7", c.T7},
	} {
		if f.d < 0 {
			errs = append(errs, fmt.Errorf("%s is %v, must be positive", f.name, f.d))
		}
	}
	if c.RetranMax < c.T5 {
		errs = append(errs, fmt.Errorf("RetranMax is %v, must be at least T5, which is %v", c.RetranMax, c.T5))
	}
	if c.Parallel < 1 || c.Parallel > 3 {
		errs = append(errs, fmt.Errorf("Parallel is %d, must be 1 to 3", c.Parallel))
	}
	if c.Jitter < 0 || c.Jitter > 0.5 {
		errs = append(errs, fmt.Errorf("Jitter is %v, must be 0 to 0.5", c.Jitter))
	}
	for _, f := range []struct {
		name string
		n    int
	}{
		{"MaxRegAttempts", c.MaxRegAttempts}, {"MaxAnnounced", c.MaxAnnounced},
		{"MaxRequests", c.MaxRequests}, {"MaxNotices", c.MaxNotices},
	} {
		if f.n < 0 {
			errs = append(errs, fmt.Errorf("%s is %d, must be positive", f.name, f.n))
		}
	}
	return errors.Join(errs...)
}
