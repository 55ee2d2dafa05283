package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/poolelement"
	"rserpool/poolelement/cookie"
	"rserpool/scripts/services/fractal"
	"rserpool/scripts/services/pingpong"
	"rserpool/scripts/services/scripting"
)

// elementFlags are those of all elements and of single services.
type elementFlags struct {
	common
	listen      transport.Endpoint
	id          uint
	key         string
	maxSessions int
	drain       time.Duration

	cookieEvery, rate int // fractal
	jobs              int // scripting
}

func (f *elementFlags) declare(fs *flag.FlagSet, service string) {
	f.common.declare(fs)
	f.listen = transport.Endpoint{Network: transport.TCP, Hosts: []string{"127.0.0.1"}}
	fs.Func("listen", "`ENDPOINT` to serve users at, such as sctp://192.0.2.1 (default tcp://127.0.0.1:0)", func(v string) (err error) {
		f.listen, err = transport.ParseEndpoint(v, transport.TCP, 0)
		return err
	})
	fs.UintVar(&f.id, "id", 0, "PE identifier (default: random)")
	fs.StringVar(&f.key, "cookie-key", "", "`file` with the secret that signs cookies, the same for all elements (default: cookies are not signed, as rsplib's)")
	fs.IntVar(&f.maxSessions, "max-sessions", 0, "sessions at a time (default: that of the library)")
	fs.DurationVar(&f.drain, "drain", time.Second, "how long sessions may go on after SIGTERM")
	switch service {
	case "fractal":
		fs.IntVar(&f.cookieEvery, "cookie-every", 10, "messages of points from one cookie to the next")
		fs.IntVar(&f.rate, "rate", 0, "slow down to so many points per second (default: as fast as it goes)")
	case "scripting":
		fs.IntVar(&f.jobs, "jobs", 1, "jobs at a time")
	}
}

// runElement serves until ctx ends.
func runElement(ctx context.Context, service string, args []string) (err error) {
	var f elementFlags
	fs := flag.NewFlagSet("services element "+service, flag.ContinueOnError)
	f.declare(fs, service)
	if err := f.parse(fs, args); err != nil {
		return err
	}
	cfg := poolelement.ServeConfig{
		Element: poolelement.Config{
			ID:         param.PEID(f.id),
			Registrars: f.registrars,
			Networks:   f.networks,
			Log:        f.log,
			// They start and stop at will here: soon back, and few of them.
			RetryMin: 50 * time.Millisecond,
			RetryMax: time.Second,
		},
		Listen:       []transport.Endpoint{f.listen},
		MaxSessions:  f.maxSessions,
		DrainTimeout: f.drain,
	}
	if f.rsplib {
		cfg.Element.Compat = poolelement.Rsplib
	}
	var handler poolelement.Handler
	switch service {
	case "pingpong":
		cfg.Element.Handle, cfg.OnResume = f.handle(pingpong.Pool), pingpong.CheckState
		handler = pingpong.Element{OnPong: func(session uint64, p pingpong.Pong) {
			f.log.Infof("session %d: ping %d, pong %d", session, p.Number, p.Reply)
		}}
	case "fractal":
		cfg.Element.Handle, cfg.OnResume = f.handle(fractal.Pool), fractal.CheckState
		handler = fractal.Element{CookieEvery: f.cookieEvery, Rate: f.rate, OnPicture: func(session uint64, from fractal.State) {
			f.log.Infof("session %d: picture of %d x %d, from point %d", session, from.Parameters.Width, from.Parameters.Height, from.Done)
		}}
	case "scripting":
		jobs, err := scripting.New(scripting.Config{Jobs: f.jobs, Output: os.Stderr, Log: f.log})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, jobs.Close()) }()
		cfg.Element.Handle, cfg.Load = f.handle(scripting.Pool), jobs.Load
		cfg.Element.Policy = param.Policy{Type: param.LeastUsedDegradation, Degradation: poolelement.LoadOf(1 / float64(f.jobs))}
		handler = jobs
	default:
		return errors.New(usage)
	}
	if service != "scripting" {
		if cfg.Cookies, err = f.sealer(cfg.Element.Handle); err != nil {
			return err
		}
	}
	return poolelement.Serve(ctx, cfg, handler)
}

// sealer returns what makes cookies.
func (f *elementFlags) sealer(pool param.PoolHandle) (poolelement.Sealer, error) {
	if f.key == "" {
		return cookie.Raw{}, nil
	}
	secret, err := os.ReadFile(f.key)
	if err != nil {
		return nil, fmt.Errorf("cookie key: %w", err)
	}
	return cookie.New(cookie.Config{Pool: pool, Keys: []cookie.Key{{ID: 1, Secret: secret}}})
}
