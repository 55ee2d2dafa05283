package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/transport"
	"rserpool/asap/transport/sctp"
	"rserpool/asap/transport/tcp"
	"rserpool/enrp/ring"
	"rserpool/enrp/ring/ringnet"
)

// ringPort is where members listen if nothing else is said.
const ringPort = 7700

// Ways to send.
const (
	sendNone = "none"
	sendMax  = "max"           // as much as goes
	sendRate = "rate"          // so much per second
	sendOne  = "one-at-a-time" // the next when the last was delivered here
)

// job is what a member does; the flags of 'member'.
type job struct {
	id          int
	listen      string
	peers       string
	members     int
	payload     int
	send        string
	rate        float64 // messages per second of this member
	outstanding int
	warmup      time.Duration
	duration    time.Duration
	ahead       bool
	delay       time.Duration
}

func (j *job) flags(fs *flag.FlagSet) {
	fs.IntVar(&j.id, "id", 1, "identifier of the member")
	fs.StringVar(&j.listen, "listen", "", "where the member listens, `tcp://HOST:PORT` or sctp://...")
	fs.StringVar(&j.peers, "peers", "", "where the others listen, separated by commas")
	fs.IntVar(&j.members, "members", 1, "wait until the group has so many members")
	fs.IntVar(&j.payload, "payload", 100, "octets of each message")
	fs.StringVar(&j.send, "send", sendNone, "how to send: none, max, rate or one-at-a-time")
	fs.Float64Var(&j.rate, "rate", 1000, "messages per second, for --send rate")
	fs.IntVar(&j.outstanding, "outstanding", 0, "bound of own messages on their way with --send max; 0: what the queue takes")
	fs.DurationVar(&j.warmup, "warmup", 500*time.Millisecond, "time before the measurement")
	fs.BoolVar(&j.ahead, "ahead", false, "experiment: send bodies to all at once, and only their numbers with the token")
	fs.DurationVar(&j.delay, "delay", 0, "keep each message on TCP so long before it goes, as a longer way would")
	fs.Func("seconds", "length of the measurement", func(v string) (err error) {
		j.duration, err = time.ParseDuration(v + "s")
		return err
	})
}

// args writes the flags that make this job.
func (j *job) args() []string {
	args := []string{
		"--id", fmt.Sprint(j.id), "--listen", j.listen, "--peers", j.peers, "--members", fmt.Sprint(j.members),
		"--payload", fmt.Sprint(j.payload), "--send", j.send, "--rate", fmt.Sprint(j.rate),
		"--outstanding", fmt.Sprint(j.outstanding), "--warmup", j.warmup.String(), "--seconds", fmt.Sprint(j.duration.Seconds()),
	}
	if j.delay > 0 {
		args = append(args, "--delay", j.delay.String()) // which rivals need not know
	}
	return args
}

func (j *job) check() error {
	switch {
	case j.listen == "":
		return errors.New("no --listen")
	case j.send != sendNone && j.send != sendMax && j.send != sendRate && j.send != sendOne:
		return fmt.Errorf("unknown --send %q", j.send)
	case j.id < 1 || j.members < 1 || j.payload < 0 || j.outstanding < 0 || j.rate <= 0:
		return errors.New("--id, --members, --payload, --outstanding and --rate must be positive")
	}
	return nil
}

func member(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("ringbench member", flag.ContinueOnError)
	j := &job{duration: 5 * time.Second}
	j.flags(fs)
	alone := fs.Bool("alone", false, "begin by itself and leave when done, without standard input")
	preset := fs.String("timers", "lan", "timers of the ring: lan, wan or test")
	visit := fs.Int("visit", 0, "octets of payloads added at one visit of the token; 0: the default")
	token := fs.Int("token", 0, "octets of payloads in the token; 0: the default")
	cpuProfile := fs.String("cpuprofile", "", "write a CPU profile of the measurement to this `file`")
	verbose := fs.Bool("verbose", false, "log what the ring does")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if err := j.check(); err != nil {
		return err
	}
	log := logrus.New()
	log.SetLevel(logrus.WarnLevel)
	if *verbose {
		log.SetLevel(logrus.DebugLevel)
	}
	timers, ok := map[string]ring.Timers{"lan": ring.LAN(), "wan": ring.WAN(), "test": ring.Test()}[*preset]
	if !ok {
		return fmt.Errorf("unknown --timers %q", *preset)
	}
	load := newLoad(j)
	var overTCP transport.Network = tcp.New()
	if j.delay > 0 {
		overTCP = delayed{overTCP, j.delay}
	}
	cfg := ringnet.Config{
		Cluster: "ringbench", ID: ring.NodeID(j.id), Networks: transport.NewNetworks(sctp.New(), overTCP),
		Timers: timers, Limits: ring.Limits{Visit: *visit, Token: *token}, Handler: load, Log: log,
	}
	var err error
	if cfg.Listen, err = endpoints(j.listen); err != nil {
		return err
	}
	if cfg.Peers, err = endpoints(j.peers); err != nil {
		return err
	}
	group, err := ringnet.New(cfg)
	if err != nil {
		return err
	}
	load.group = group
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if j.ahead {
		load.bodies = newBodies(j.payload, func(p []byte) error {
			_, err := group.Propose(p)
			return err
		}, load.took)
	}
	if err := group.Start(ctx); err != nil {
		return err
	}
	defer func() {
		// The others may be gone already.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = group.Stop(ctx)
	}()
	if j.ahead {
		if err := load.bodies.connect(ctx, group.Self().Member, j); err != nil {
			return err
		}
	}
	select {
	case <-load.whole:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	input := bufio.NewReader(os.Stdin)
	if !*alone {
		fmt.Println("ready")
		if _, err := input.ReadString('\n'); err != nil {
			return fmt.Errorf("wait for the start: %w", err)
		}
	}
	if *cpuProfile != "" {
		f, err := os.Create(*cpuProfile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
	}
	r, err := load.measure(ctx)
	pprof.StopCPUProfile()
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return err
	}
	if *verbose {
		s, err := group.Status(ctx)
		if err == nil {
			err = json.NewEncoder(os.Stderr).Encode(s)
		}
		if err != nil {
			return err
		}
	}
	if !*alone {
		_, _ = input.ReadString('\n') // the end of the input
	}
	return nil
}

func endpoints(list string) ([]transport.Endpoint, error) {
	var all []transport.Endpoint
	for text := range strings.SplitSeq(list, ",") {
		if text == "" {
			continue
		}
		e, err := transport.ParseEndpoint(text, transport.TCP, ringPort)
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}
