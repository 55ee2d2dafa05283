// Services runs small pool elements and users, to look at, to demonstrate and to
// measure sessions with: ping-pong, fractals and scripting as rsplib's demo programs
// have them, so that each end works with either.
//
//	services element SERVICE --registrar ENDPOINT [FLAGS]
//	services user pingpong|fractal --registrar ENDPOINT [FLAGS]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/sirupsen/logrus"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/sctp"
	"rserpool/asap/transport/tcp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "services:", err)
		os.Exit(1)
	}
}

const usage = "usage: services element pingpong|fractal|scripting FLAGS, services user pingpong|fractal FLAGS; -help after that shows the flags"

func run(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New(usage)
	}
	switch args[0] {
	case "element":
		return runElement(ctx, args[1], args[2:])
	case "user":
		return runUser(ctx, args[1], args[2:])
	}
	return errors.New(usage)
}

// common are the flags of elements and users.
type common struct {
	registrars []transport.Endpoint
	pool       string
	rsplib     bool
	level      string

	networks *transport.Networks
	log      *logrus.Logger
}

func (c *common) declare(fs *flag.FlagSet) {
	fs.Func("registrar", "`ENDPOINT` of a registrar, such as tcp://127.0.0.1:3863; may be repeated", func(v string) error {
		endpoint, err := transport.ParseEndpoint(v, transport.Auto, asap.Port)
		c.registrars = append(c.registrars, endpoint)
		return err
	})
	fs.StringVar(&c.pool, "pool", "", "pool handle (default: the one of rsplib's programs)")
	fs.BoolVar(&c.rsplib, "rsplib", false, "get on with registrars, elements and users of rsplib")
	fs.StringVar(&c.level, "log-level", "info", "what to log: error, warning, info or debug")
}

func (c *common) parse(fs *flag.FlagSet, args []string) error {
	if err := fs.Parse(args); err != nil {
		return err
	}
	level, err := logrus.ParseLevel(c.level)
	switch {
	case err != nil:
		return err
	case fs.NArg() > 0:
		return fmt.Errorf("unexpected %q", strings.Join(fs.Args(), " "))
	case len(c.registrars) == 0:
		return errors.New("no --registrar")
	}
	c.networks = transport.NewNetworks(sctp.New(), tcp.New())
	c.log = logrus.New()
	c.log.SetLevel(level)
	return nil
}

func (c *common) handle(usual string) param.PoolHandle {
	if c.pool != "" {
		return param.PoolHandle(c.pool)
	}
	return param.PoolHandle(usual)
}
