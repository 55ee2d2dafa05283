package handlespace

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"rserpool/asap/param"
)

// Config bounds a handlespace. Zero fields stand for the defaults. All fields but
// ResultLimits and Rand decide what Apply does, and must be the same at all
// registrars that apply the same commands.
type Config struct {
	// MaxPools is the number of pools, MaxElements that of elements in all
	// pools together, MaxElementsPerPool that in one pool. A registration
	// beyond is rejected with cause 0x6, Lack of Resources. Defaults
	// 1,000,000, 2,000,000 and 1,000,000. An element takes about half a
	// KiB, a pool one KiB more.
	MaxPools           int
	MaxElements        int
	MaxElementsPerPool int
	// MaxPoolsPerOwner is the number of pools that exist because the same
	// owner (Register.Owner) created them, so that one client cannot take
	// them all. Beyond it, cause 0x6. Default 1,000.
	MaxPoolsPerOwner int

	// MaxElementSize is the size of an element, octets, as it is encoded in
	// replies. Beyond it, cause 0x6. Default 4096.
	MaxElementSize int

	// MaxBadPEReports is RFC 5352's MAX-BAD-PE-REPORT: with more reports
	// since its latest registration an element is removed, although it
	// answers. Default 3 (AMB-16).
	MaxBadPEReports int

	// RemovalWindow, RemovalFloor and RemovalShare are the removal limit: of
	// one pool, no more than RemovalFloor elements or the share RemovalShare
	// of the pool, whichever is more, go unattended within RemovalWindow.
	// Further ones are marked suspect and stay until they answer, register
	// again or are removed by an administrator. The pool's size counts with
	// those removed within the window. Defaults 60 s, 10 and 0.5. A share of
	// 1 sets no limit.
	RemovalWindow time.Duration
	RemovalFloor  int
	RemovalShare  float64

	// HoldBack is for how long after the loss of registrars elements that are
	// not reached, or expire, are marked suspect instead of removed;
	// HoldBackShare is the share of a pool that may be so. What is beyond is
	// treated as ever. Defaults 60 s and 1.
	HoldBack      time.Duration
	HoldBackShare float64

	// Tombstone is for how long the removal of an element is remembered,
	// beyond its registration life (at most a day of it): longer than
	// keep-alives take to find a dead element and HoldBack together. A side
	// that was apart for longer may bring elements back. MaxTombstones bounds
	// them, of some 300 octets each, and their pool handles together to 256 octets for
	// each; beyond, the oldest is forgotten. While sides merge there may be as many of each.
	// Deregistrations of elements that are not remembered leave one only while no
	// more than half of them are in use. Defaults 10 minutes and 1,000,000.
	Tombstone     time.Duration
	MaxTombstones int

	// ResultLimits is the number of elements in a reply by policy type, for
	// requests that name no number (AMB-35). Defaults as in
	// selection.Definition.Limit.
	ResultLimits map[param.PolicyType]int

	// Rand seeds the random choices of each pool. Default: a random seed.
	// Only the writer uses it.
	Rand *rand.Rand
}

// Validate names all fields that are out of range.
func (c Config) Validate() error {
	var errs []error
	positive := func(name string, n int) {
		if n < 0 {
			errs = append(errs, fmt.Errorf("%s is %d, must be positive", name, n))
		}
	}
	positive("MaxPools", c.MaxPools)
	positive("MaxElements", c.MaxElements)
	positive("MaxElementsPerPool", c.MaxElementsPerPool)
	positive("MaxPoolsPerOwner", c.MaxPoolsPerOwner)
	positive("MaxElementSize", c.MaxElementSize)
	positive("MaxBadPEReports", c.MaxBadPEReports)
	positive("RemovalFloor", c.RemovalFloor)
	positive("MaxTombstones", c.MaxTombstones)
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"RemovalWindow", c.RemovalWindow}, {"HoldBack", c.HoldBack}, {"Tombstone", c.Tombstone}} {
		if d.value < 0 {
			errs = append(errs, fmt.Errorf("%s is %v, must be positive", d.name, d.value))
		}
	}
	for _, d := range []struct {
		name  string
		value float64
	}{{"RemovalShare", c.RemovalShare}, {"HoldBackShare", c.HoldBackShare}} {
		if !(d.value >= 0 && d.value <= 1) {
			errs = append(errs, fmt.Errorf("%s is %v, must be from 0 to 1", d.name, d.value))
		}
	}
	for t, n := range c.ResultLimits {
		if n < 1 {
			errs = append(errs, fmt.Errorf("ResultLimits for %v is %d, must be positive", t, n))
		}
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	orInt := func(n *int, standard int) {
		if *n == 0 {
			*n = standard
		}
	}
	orInt(&c.MaxPools, 1_000_000)
	orInt(&c.MaxElements, 2_000_000)
	orInt(&c.MaxElementsPerPool, 1_000_000)
	orInt(&c.MaxPoolsPerOwner, 1_000)
	orInt(&c.MaxElementSize, 4096)
	orInt(&c.MaxBadPEReports, 3)
	orInt(&c.RemovalFloor, 10)
	orInt(&c.MaxTombstones, 1_000_000)
	orTime := func(d *time.Duration, standard time.Duration) {
		if *d == 0 {
			*d = standard
		}
	}
	orTime(&c.RemovalWindow, time.Minute)
	orTime(&c.HoldBack, time.Minute)
	orTime(&c.Tombstone, 10*time.Minute)
	if c.RemovalShare == 0 {
		c.RemovalShare = 0.5
	}
	if c.HoldBackShare == 0 {
		c.HoldBackShare = 1
	}
	if c.Rand == nil {
		c.Rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	return c
}
