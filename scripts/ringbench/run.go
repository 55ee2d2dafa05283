package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// contender is a system that is measured.
type contender struct {
	name    string
	command []string // the flags of 'member' follow
}

// scenario is one row of a table.
type scenario struct {
	members, senders, payload int
	send                      string
	rate                      float64 // of all senders together
}

type plan struct {
	contenders []contender
	members    []int
	payloads   []int
	senders    []int // 0: all members
	rates      []float64
	tables     []string
	// outstanding bounds the messages of each sender on their way in the
	// throughput table.
	outstanding int
	runs        int
	warmup      time.Duration
	duration    time.Duration
	loopback    bool
	linkRate    string
	delay       time.Duration
	asJSON      bool
	port        int
}

// patience is how long a group may take to come together, or to answer.
const patience = 30 * time.Second

func run(ctx context.Context, args []string) error {
	p, err := parsePlan(args)
	if err != nil {
		return err
	}
	most := 0
	for _, n := range p.members {
		most = max(most, n)
	}
	var where places = loopback{port: p.port}
	if !p.loopback {
		if os.Geteuid() == 0 {
			ns, err := newNamespaces(ctx, most, p.linkRate)
			if err != nil {
				return err
			}
			where = ns
		} else {
			fmt.Fprintln(os.Stderr, "ringbench: not root, so members run on loopback")
		}
	}
	defer where.close()
	var errs []error
	for _, table := range p.tables {
		errs = append(errs, p.table(ctx, where, table))
	}
	return errors.Join(errs...)
}

func parsePlan(args []string) (*plan, error) {
	p := &plan{}
	fs := flag.NewFlagSet("ringbench run", flag.ContinueOnError)
	members := fs.String("members", "3", "sizes of the group, `N,N`")
	name := fs.String("name", "ring", "what our contender is called in the tables")
	senders := fs.String("senders", "1,all", "how many members send in the throughput table")
	payloads := fs.String("payloads", "100,1000,8000", "octets of the messages of the throughput table")
	rates := fs.String("rates", "1000,10000,50000,100000,200000,300000", "offered messages per second of the load table")
	tables := fs.String("tables", "throughput,latency,load", "what to measure")
	seconds := fs.Float64("seconds", 3, "length of each measurement")
	fs.IntVar(&p.runs, "runs", 3, "measurements of each row; medians are printed")
	fs.DurationVar(&p.warmup, "warmup", 500*time.Millisecond, "time before each measurement")
	fs.IntVar(&p.outstanding, "outstanding", 0, "bound of each sender's messages on their way in the throughput table; 0: what the queue takes")
	fs.BoolVar(&p.loopback, "loopback", false, "no network namespaces, even as root")
	fs.StringVar(&p.linkRate, "link-rate", "", "rate of each member's link, both ways, as tc writes it: `1gbit`; as fast as it goes if empty")
	fs.DurationVar(&p.delay, "delay", 0, "how much longer each message takes on its way; ours only")
	fs.BoolVar(&p.asJSON, "json", false, "print rows as JSON, one per line")
	fs.IntVar(&p.port, "port", ringPort, "first port on loopback")
	only := fs.Bool("rivals-only", false, "measure the rivals alone")
	extra := fs.String("member-flags", "", "further flags for our members, separated by blanks")
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var rivals []contender
	fs.Func("rival", "another system, `NAME=COMMAND`; repeatable", func(v string) error {
		name, command, ok := strings.Cut(v, "=")
		if !ok || command == "" {
			return fmt.Errorf("%q is not NAME=COMMAND", v)
		}
		rivals = append(rivals, contender{name, strings.Fields(command)})
		return nil
	})
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if !*only {
		p.contenders = append(p.contenders, contender{*name, append([]string{self, "member"}, strings.Fields(*extra)...)})
	}
	p.contenders = append(p.contenders, rivals...)
	p.tables = strings.Split(*tables, ",")
	p.duration = time.Duration(*seconds * float64(time.Second))
	var errs [4]error
	p.members, errs[0] = list(*members, strconv.Atoi)
	p.payloads, errs[1] = list(*payloads, strconv.Atoi)
	p.rates, errs[2] = list(*rates, func(s string) (float64, error) { return strconv.ParseFloat(s, 64) })
	p.senders, errs[3] = list(*senders, func(s string) (int, error) {
		if s == "all" {
			return 0, nil
		}
		return strconv.Atoi(s)
	})
	if p.runs < 1 || p.duration <= 0 || len(p.contenders) == 0 {
		return nil, errors.New("--runs and --seconds must be positive, and something must be measured")
	}
	return p, errors.Join(errs[:]...)
}

func list[T any](s string, parse func(string) (T, error)) ([]T, error) {
	var all []T
	for text := range strings.SplitSeq(s, ",") {
		v, err := parse(text)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// table measures and prints one table. What fails is left out, and told at the end.
func (p *plan) table(ctx context.Context, where places, name string) error {
	var rows []scenario
	for _, members := range p.members {
		switch name {
		case "throughput":
			for _, payload := range p.payloads {
				for _, senders := range p.senders {
					rows = append(rows, scenario{members, cmp.Or(senders, members), payload, sendMax, 0})
				}
			}
		case "latency":
			rows = append(rows, scenario{members, 1, 100, sendOne, 0})
		case "load":
			for _, rate := range p.rates {
				rows = append(rows, scenario{members, members, 100, sendRate, rate})
			}
		default:
			return fmt.Errorf("unknown table %q: throughput, latency or load", name)
		}
	}
	if !p.asJSON {
		fmt.Printf("\n### %s (%s, %d cores, median of %d runs of %s in turns)\n\n", name, where, runtime.NumCPU(), p.runs, p.duration)
		fmt.Println("| system | members | senders | octets | offered/s | ordered/s | agreed p50 | p99 | stable p50 | p99 | CPU per message |")
		fmt.Println("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
	}
	var errs []error
	for _, s := range rows {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		outcomes := make([][]outcome, len(p.contenders))
		for range p.runs {
			for i, c := range p.contenders {
				results, err := p.measure(ctx, where, c, s)
				if err != nil {
					errs = append(errs, fmt.Errorf("%s, %+v: %w", c.name, s, err))
					continue
				}
				outcomes[i] = append(outcomes[i], summarize(results))
			}
		}
		for i, c := range p.contenders {
			if len(outcomes[i]) == 0 {
				continue
			}
			if err := p.print(c, s, outcomes[i]); err != nil {
				return err
			}
		}
	}
	return errors.Join(errs...)
}

// row is what --json prints.
type row struct {
	System    string    `json:"system"`
	Members   int       `json:"members"`
	Senders   int       `json:"senders"`
	Payload   int       `json:"payload_octets"`
	Send      string    `json:"send"`
	Network   string    `json:"network,omitempty"`
	Offered   float64   `json:"offered_per_second,omitempty"`
	Rate      float64   `json:"ordered_per_second"`
	Rates     []float64 `json:"runs"`
	AgreedP50 float64   `json:"agreed_p50_seconds"`
	AgreedP99 float64   `json:"agreed_p99_seconds"`
	StableP50 float64   `json:"stable_p50_seconds"`
	StableP99 float64   `json:"stable_p99_seconds"`
	CPU       float64   `json:"cpu_seconds_per_message"`
}

func (p *plan) print(c contender, s scenario, outcomes []outcome) error {
	r := row{
		System: c.name, Members: s.members, Senders: s.senders, Payload: s.payload, Send: s.send, Offered: s.rate, Network: p.network(),
		Rate:      median(outcomes, func(o outcome) float64 { return o.rate }),
		AgreedP50: median(outcomes, func(o outcome) float64 { return o.agreed.P50 }),
		AgreedP99: median(outcomes, func(o outcome) float64 { return o.agreed.P99 }),
		StableP50: median(outcomes, func(o outcome) float64 { return o.stable.P50 }),
		StableP99: median(outcomes, func(o outcome) float64 { return o.stable.P99 }),
		CPU:       median(outcomes, func(o outcome) float64 { return o.cpu }),
	}
	for _, o := range outcomes {
		r.Rates = append(r.Rates, o.rate)
	}
	if p.asJSON {
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	micro := func(seconds float64) string {
		if seconds == 0 {
			return "-"
		}
		return fmt.Sprintf("%.4g µs", seconds*1e6)
	}
	offered := "-"
	if s.rate > 0 {
		offered = fmt.Sprintf("%.0f", s.rate)
	}
	_, err := fmt.Printf("| %s | %d | %d | %d | %s | %.0f | %s | %s | %s | %s | %s |\n", r.System, r.Members, r.Senders, r.Payload,
		offered, r.Rate, micro(r.AgreedP50), micro(r.AgreedP99), micro(r.StableP50), micro(r.StableP99), micro(r.CPU))
	return err
}

// network says what was done to the network.
func (p *plan) network() string {
	var how []string
	if p.linkRate != "" {
		how = append(how, p.linkRate)
	}
	if p.delay > 0 {
		how = append(how, p.delay.String()+" each way")
	}
	return strings.Join(how, ", ")
}

// process is one running member.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// measure runs a group once.
func (p *plan) measure(ctx context.Context, where places, c contender, s scenario) ([]result, error) {
	ctx, cancel := context.WithTimeout(ctx, p.warmup+p.duration+2*patience)
	defer cancel()
	processes := make([]*process, s.members)
	defer func() {
		for _, m := range processes {
			if m != nil {
				_ = m.in.Close() // ends it
			}
		}
		cutOff := time.AfterFunc(patience, cancel)
		defer cutOff.Stop()
		for i, m := range processes {
			if m == nil {
				continue
			}
			if err := m.cmd.Wait(); err != nil {
				fmt.Fprintf(os.Stderr, "ringbench: member %d of %s: %v\n", i+1, c.name, err)
			}
		}
	}()
	for i := range processes {
		var err error
		if processes[i], err = p.start(ctx, where, c, s, i); err != nil {
			return nil, fmt.Errorf("start member %d: %w", i+1, err)
		}
	}
	for i, m := range processes {
		line, err := m.out.ReadString('\n')
		if err != nil || strings.TrimSpace(line) != "ready" {
			return nil, fmt.Errorf("member %d is not ready: %q, %w", i+1, line, err)
		}
	}
	for i, m := range processes {
		if _, err := io.WriteString(m.in, "go\n"); err != nil {
			return nil, fmt.Errorf("begin at member %d: %w", i+1, err)
		}
	}
	results := make([]result, len(processes))
	for i, m := range processes {
		line, err := m.out.ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, &results[i])
		}
		if err != nil {
			return nil, fmt.Errorf("result of member %d: %w", i+1, err)
		}
	}
	return results, nil
}

func (p *plan) start(ctx context.Context, where places, c contender, s scenario, i int) (*process, error) {
	j := job{
		id: i + 1, listen: "tcp://" + where.address(i), members: s.members, payload: s.payload, send: s.send,
		rate: max(1, s.rate/float64(s.senders)), outstanding: p.outstanding, warmup: p.warmup, duration: p.duration, delay: p.delay,
	}
	if i >= s.senders {
		j.send = sendNone
	}
	var peers []string
	for k := range s.members {
		if k != i {
			peers = append(peers, "tcp://"+where.address(k))
		}
	}
	j.peers = strings.Join(peers, ",")
	m := &process{cmd: where.command(ctx, i, append(append([]string(nil), c.command...), j.args()...))}
	m.cmd.Stderr = os.Stderr
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	m.out = bufio.NewReader(out)
	if m.in, err = m.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return m, m.cmd.Start()
}
