// Loadgen measures how fast registrars answer handle resolutions and, as 'loadgen
// registrations', how fast they acknowledge registrations; 'loadgen failover' measures
// how long the death of one is felt, 'loadgen join' what its return takes.
//
// It is a closed loop: each connection keeps a number of requests outstanding
// and sends the next when an answer has come. Several targets, and a bare TCP
// echo with messages of the same sizes, are measured in turns, so that what
// happens to the machine happens to all of them.
//
//	loadgen --target tcp://127.0.0.1:3863 --pid PID --pool bench --register 100
//	loadgen --target ours=sctp://10.9.0.1:3863 --pid P1 \
//	        --target theirs=sctp://10.9.0.1:4863 --pid P2 --compat rsplib --runs 7
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/sctp"
	"rserpool/asap/transport/tcp"
)

// settings are the flags.
type settings struct {
	targets     []*target
	pool        param.PoolHandle
	items       uint32
	register    int
	rsplib      bool
	connections int
	outstanding int
	warmup      time.Duration
	duration    time.Duration
	runs        int
	churn       int // re-registrations per second
	echo        bool
	format      string
}

// target is one server that is measured.
type target struct {
	name     string
	endpoint transport.Endpoint
	pid      int // 0: CPU time is not measured

	churn        *churn // while it is measured; nil: none
	elements     int    // in an answer
	responseSize int
	results      []result
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) > 0 && args[0] == echoCommand {
		return serveEcho(args[1:])
	}
	if len(args) > 0 && args[0] == registrationsCommand {
		return registrations(ctx, args[1:], out)
	}
	if len(args) > 0 && args[0] == failoverCommand {
		return runFailover(ctx, args[1:], out)
	}
	if len(args) > 0 && args[0] == joinCommand {
		return runJoin(ctx, args[1:], out)
	}
	s, err := parse(args)
	if err != nil {
		return err
	}
	return measure(ctx, transport.NewNetworks(sctp.New(), tcp.New()), s, out)
}

// measure measures each target as often as asked for, and prints what was found.
func measure(ctx context.Context, networks *transport.Networks, s *settings, out io.Writer) error {
	request, err := (&asap.HandleResolution{Handle: s.pool, Items: s.items}).Append(nil)
	if err != nil {
		return err
	}
	for _, t := range s.targets {
		var elements *elements
		if s.register > 0 {
			elements, err = register(ctx, networks, t.endpoint, s)
			if err != nil {
				return fmt.Errorf("register at %s: %w", t.name, err)
			}
			defer func() {
				if err := elements.deregister(); err != nil {
					fmt.Fprintf(os.Stderr, "loadgen: deregister at %s: %v\n", t.name, err)
				}
			}()
		}
		if err := t.probe(ctx, networks, request); err != nil {
			return fmt.Errorf("ask %s: %w", t.name, err)
		}
		if s.churn > 0 {
			busy := *t
			busy.name += fmt.Sprintf(", %d re-registrations/s", s.churn)
			busy.churn = &churn{elements: elements, rate: s.churn, rsplib: s.rsplib}
			s.targets = append(s.targets, &busy)
		}
	}
	if s.echo {
		e, err := startEcho(ctx, len(request), s.targets[0])
		if err != nil {
			return fmt.Errorf("start the echo server: %w", err)
		}
		defer e.stop()
		s.targets = append(s.targets, e.target)
	}
	for range s.runs {
		for _, t := range s.targets {
			r, err := t.measure(ctx, networks, request, s)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			t.results = append(t.results, r)
		}
	}
	return report(out, s, len(request))
}

// parse reads the flags.
func parse(args []string) (*settings, error) {
	s := &settings{}
	fs := flag.NewFlagSet("loadgen", flag.ContinueOnError)
	var pids []int
	fs.Func("target", "server to measure, `[NAME=]tcp://HOST:PORT` or sctp://...; repeatable, measured in turns", func(v string) error {
		t, err := parseTarget(v)
		s.targets = append(s.targets, t)
		return err
	})
	fs.Func("pid", "process `id` of the server, for its CPU time; repeatable, in the order of the targets", func(v string) error {
		pid, err := strconv.Atoi(v)
		pids = append(pids, pid)
		return err
	})
	pool := fs.String("pool", "bench", "pool handle to resolve")
	items := fs.Uint("items", 0, "ask for this many elements by rsplib's private option; 0: don't say")
	fs.IntVar(&s.register, "register", 0, "first register this many elements in the pool, and answer their keep-alives")
	compat := fs.String("compat", "", "rsplib: registration life in milliseconds; needs addresses that are not loopback")
	fs.IntVar(&s.connections, "connections", 8, "connections to each server")
	fs.IntVar(&s.outstanding, "outstanding", 1, "requests outstanding on each connection")
	fs.DurationVar(&s.warmup, "warmup", 300*time.Millisecond, "time before each measurement")
	fs.DurationVar(&s.duration, "duration", 2*time.Second, "time of each measurement")
	fs.IntVar(&s.runs, "runs", 1, "measurements of each server; the medians are printed")
	fs.IntVar(&s.churn, "churn", 0, "also measure each server while so many of the elements register again each second, without waiting for answers; needs --register")
	fs.BoolVar(&s.echo, "echo-baseline", false, "also measure a bare TCP echo with messages of the first target's sizes")
	fs.StringVar(&s.format, "format", "text", "output: text, markdown (table rows) or json")
	asJSON := fs.Bool("json", false, "short for --format json")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	s.pool, s.items, s.rsplib = param.PoolHandle(*pool), uint32(*items), *compat == "rsplib"
	if *asJSON {
		s.format = "json"
	}
	for i, pid := range pids[:min(len(pids), len(s.targets))] {
		s.targets[i].pid = pid
	}
	var errs []error
	refuse := func(bad bool, what string) {
		if bad {
			errs = append(errs, errors.New(what))
		}
	}
	refuse(fs.NArg() > 0, fmt.Sprintf("unknown arguments %q", fs.Args()))
	refuse(len(s.targets) == 0, "no --target")
	refuse(len(pids) > len(s.targets), "more --pid than --target")
	refuse(*compat != "" && !s.rsplib, "--compat knows only rsplib")
	refuse(s.connections < 1 || s.outstanding < 1 || s.runs < 1 || s.duration <= 0 || s.warmup < 0 || s.register < 0,
		"--connections, --outstanding, --runs and --duration must be positive")
	refuse(s.churn < 0 || s.churn > 0 && s.register == 0, "--churn needs --register")
	refuse(s.format != "text" && s.format != "markdown" && s.format != "json", "--format is text, markdown or json")
	return s, errors.Join(errs...)
}

func parseTarget(v string) (*target, error) {
	name, address, named := strings.Cut(v, "=")
	if !named {
		name, address = v, v
	}
	e, err := transport.ParseEndpoint(address, transport.TCP, asap.Port)
	return &target{name: name, endpoint: e}, err
}

// probe asks once, to learn what an answer looks like.
func (t *target) probe(ctx context.Context, networks *transport.Networks, request []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := networks.Dial(ctx, nil, t.endpoint, transport.Options{DefaultPPID: transport.PPIDASAP})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Send(ctx, transport.Message{Data: request}); err != nil {
		return err
	}
	m, err := conn.Receive(ctx, make([]byte, transport.MaxMessage))
	if err != nil {
		return err
	}
	answer, _, err := asap.Decode(m.Data)
	if err != nil {
		return err
	}
	r, ok := answer.(*asap.HandleResolutionResponse)
	if !ok || r.Error != nil {
		return fmt.Errorf("the answer is %s %+v", answer.Type(), answer)
	}
	t.elements, t.responseSize = len(r.Elements), len(m.Data)
	return nil
}

// measure loads a target once.
func (t *target) measure(ctx context.Context, networks *transport.Networks, request []byte, s *settings) (r result, err error) {
	l := load{
		open: func(ctx context.Context, _ int) (link, error) {
			return openLink(ctx, networks, t.endpoint, request, s.outstanding)
		},
		links: s.connections, outstanding: s.outstanding, cycle: 1,
		warmup: s.warmup, duration: s.duration,
	}
	if t.pid != 0 {
		l.pids = []int{t.pid}
	}
	if t.churn == nil {
		return l.run(ctx)
	}
	err = t.churn.during(ctx, func(ctx context.Context) error {
		r, err = l.run(ctx)
		return err
	})
	return r, err
}
