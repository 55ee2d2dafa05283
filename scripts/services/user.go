package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"time"

	"rserpool/asap/param"
	"rserpool/pooluser"
	"rserpool/scripts/services/fractal"
	"rserpool/scripts/services/pingpong"
)

// userFlags are those of all users and of single services.
type userFlags struct {
	common
	timers string

	interval time.Duration // pingpong

	picture fractal.Parameters // fractal
	pause   time.Duration
}

func (f *userFlags) declare(fs *flag.FlagSet, service string) {
	f.common.declare(fs)
	fs.StringVar(&f.timers, "timers", "default", "timers of the session: fast, default or patient")
	switch service {
	case "pingpong":
		fs.DurationVar(&f.interval, "interval", 500*time.Millisecond, "time from one ping to the next")
	case "fractal":
		f.picture = fractal.Parameters{C1: complex(-0.6, -1.25), C2: complex(2.1, 1.25)}
		number := func(to *uint32, name string, value uint, usage string) {
			*to = uint32(value)
			fs.Func(name, fmt.Sprintf("%s (default %d)", usage, value), func(v string) error {
				_, err := fmt.Sscan(v, to)
				return err
			})
		}
		number(&f.picture.Width, "width", 320, "`points` of a row")
		number(&f.picture.Height, "height", 240, "`rows`")
		number(&f.picture.Iterations, "iterations", 1000, "most `steps` for a point")
		fs.DurationVar(&f.pause, "pause", 0, "pause after each part of the picture, which slows the element down too")
	}
}

// presets are the timers of sessions by name.
var presets = map[string]pooluser.Timers{"fast": pooluser.Fast, "default": pooluser.Default, "patient": pooluser.Patient}

// runUser keeps a session until ctx ends or it has what it wants.
func runUser(ctx context.Context, service string, args []string) error {
	var f userFlags
	fs := flag.NewFlagSet("services user "+service, flag.ContinueOnError)
	f.declare(fs, service)
	if err := f.parse(fs, args); err != nil {
		return err
	}
	timers, ok := presets[f.timers]
	if !ok {
		return fmt.Errorf("--timers %s: fast, default or patient", f.timers)
	}
	r, err := pooluser.New(pooluser.Config{Registrars: f.registrars, Networks: f.networks, RSPLib: f.rsplib, Stale: time.Second, Log: f.log})
	if err != nil {
		return err
	}
	r.Start()
	defer r.Stop()
	// Elements of rsplib know no heartbeats.
	session := pooluser.SessionConfig{Timers: timers, SCTPHeartbeats: !f.rsplib}
	switch service {
	case "pingpong":
		err = f.pingPong(ctx, r, session)
	case "fractal":
		err = f.fractal(ctx, r, session)
	default:
		return errors.New(usage)
	}
	if ctx.Err() != nil {
		return nil // asked to end
	}
	return err
}

func (f *userFlags) pingPong(ctx context.Context, r *pooluser.Resolver, session pooluser.SessionConfig) error {
	return pingpong.User{
		Interval: f.interval,
		OnPong: func(p pingpong.Pong, from param.PEID) {
			fmt.Printf("%s Ack #%d from PE $%08x (reply #%d)\n", stamp(), p.Number, uint32(from), p.Reply)
		},
		OnFailover: func(to param.PEID) { fmt.Printf("%s failed over to PE $%08x\n", stamp(), uint32(to)) },
	}.Run(ctx, r, f.handle(pingpong.Pool), session)
}

func stamp() string { return time.Now().Format("15:04:05.000") }

func (f *userFlags) fractal(ctx context.Context, r *pooluser.Resolver, session pooluser.SessionConfig) error {
	percent, failovers := uint64(0), 0
	user := fractal.User{
		OnData: func(ctx context.Context, c *fractal.Canvas, at param.PEID) error {
			if now := 100 * c.Done() / f.picture.Points(); now != percent {
				percent = now
				fmt.Printf("%s %d %%, PE $%08x\n", stamp(), percent, uint32(at))
			}
			wait := time.NewTimer(f.pause)
			defer wait.Stop()
			select {
			case <-wait.C:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		},
		OnFailover: func(c fractal.Change) {
			failovers++
			fmt.Printf("%s failover %d: PE $%08x goes on at point %d, %d were computed again: %v\n",
				stamp(), failovers, uint32(c.To), c.Resumed, c.Had-c.Resumed, c.Cause)
		},
	}
	c, err := user.Compute(ctx, r, f.handle(fractal.Pool), f.picture, session)
	if err != nil {
		return err
	}
	if !slices.Equal(c.Points(), f.picture.Picture()) {
		return errors.New("the picture is wrong")
	}
	fmt.Println(stamp(), "the picture is right")
	for _, line := range c.Draw(76, 24, false) {
		fmt.Println(line)
	}
	return nil
}
