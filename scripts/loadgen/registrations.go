package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
)

// registrationsCommand measures how fast a group of servers acknowledges writes:
//
//	loadgen registrations --system ring=tcp://10.0.0.1:3863,tcp://10.0.0.2:3863 \
//	        --system etcd=etcd://10.0.0.1:2379,etcd://10.0.0.2:2379 --clients 1,64
//
// It is a closed loop: each client has a connection to one of the servers, writes,
// waits for the answer, and writes again, or does so several times at once. Systems
// are measured in turns.
const registrationsCommand = "registrations"

// kind is a way to write.
type kind struct {
	name    string
	updates int // for one acknowledged write, with what undoes it
	cycle   int // see load
	open    func(ctx context.Context, address string, client, outstanding int) (link, error)
}

// system is a group of servers that know the same.
type system struct {
	name      string
	addresses []string
	kinds     []kind // new things, the same again, and new ones that stay
	pids      []int
}

// writeRow is one row of the report: medians of the runs.
type writeRow struct {
	System      string    `json:"system"`
	Kind        string    `json:"kind"`
	Clients     int       `json:"clients"`
	Outstanding int       `json:"outstanding"`
	Rate        float64   `json:"acknowledged_per_second"`
	Updates     float64   `json:"updates_per_second"`
	P50         float64   `json:"p50_seconds"`
	P99         float64   `json:"p99_seconds"`
	CPU         float64   `json:"cpu_seconds_per_write,omitempty"`
	OwnCPU      float64   `json:"client_cpu_seconds_per_write,omitempty"`
	Rates       []float64 `json:"runs"`
}

// writeSettings are the flags of registrationsCommand.
type writeSettings struct {
	systems     []system
	clients     []int
	outstanding int
	kinds       []int // of each system
	warmup      time.Duration
	duration    time.Duration
	runs        int
	json        bool
}

func registrations(ctx context.Context, args []string, out io.Writer) error {
	s, err := parseWrites(args)
	if err != nil {
		return err
	}
	if !s.json {
		_, err := fmt.Fprintf(out, "| system | write | clients | outstanding | acknowledged/s | updates/s | p50 | p99 | CPU per write, servers + clients |\n"+
			"|---|---|---:|---:|---:|---:|---:|---:|---:|\n")
		if err != nil {
			return err
		}
	}
	for _, clients := range s.clients {
		for _, k := range s.kinds {
			results := make([][]result, len(s.systems))
			for range s.runs {
				for i := range s.systems {
					sys := &s.systems[i]
					r, err := s.load(sys, &sys.kinds[k], clients).run(ctx)
					if err != nil {
						return fmt.Errorf("%s, %s: %w", sys.name, sys.kinds[k].name, err)
					}
					results[i] = append(results[i], r)
				}
			}
			for i := range s.systems {
				if err := reportWrites(out, s, &s.systems[i], k, clients, results[i]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// load is what one system is loaded with.
func (s *writeSettings) load(sys *system, k *kind, clients int) *load {
	return &load{
		open: func(ctx context.Context, i int) (link, error) {
			return k.open(ctx, sys.addresses[i%len(sys.addresses)], i, s.outstanding)
		},
		links: clients, outstanding: s.outstanding, cycle: k.cycle,
		warmup: s.warmup, duration: s.duration, pids: sys.pids,
	}
}

func parseWrites(args []string) (*writeSettings, error) {
	s := &writeSettings{}
	fs := flag.NewFlagSet("loadgen "+registrationsCommand, flag.ContinueOnError)
	fs.Func("system", "a group of servers, `NAME=tcp://HOST:PORT,...` (registrars) or NAME=etcd://HOST:PORT,...; repeatable", func(v string) error {
		sys, err := parseSystem(v)
		s.systems = append(s.systems, sys)
		return err
	})
	fs.Func("pids", "process `ids` of the latest system's servers, N,N, for their CPU time", func(v string) (err error) {
		if len(s.systems) == 0 {
			return errors.New("--pids comes behind its --system")
		}
		s.systems[len(s.systems)-1].pids, err = numbers(v)
		return err
	})
	clients := fs.String("clients", "1,64", "how many clients, `N,N`")
	fs.IntVar(&s.outstanding, "outstanding", 1, "writes outstanding at each client; etcd: 1")
	writes := fs.String("writes", "new,again", "new: elements that come and go; again: elements that register again; more: elements that come and stay until the measurement is over")
	fs.DurationVar(&s.warmup, "warmup", 300*time.Millisecond, "time before each measurement")
	fs.DurationVar(&s.duration, "duration", 2*time.Second, "time of each measurement")
	fs.IntVar(&s.runs, "runs", 3, "measurements of each; the medians are printed")
	fs.BoolVar(&s.json, "json", false, "print rows as JSON, one per line")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	var err error
	if s.clients, err = numbers(*clients); err != nil {
		return nil, err
	}
	for text := range strings.SplitSeq(*writes, ",") {
		k := slices.Index([]string{"new", "again", "more"}, text)
		if k < 0 {
			return nil, fmt.Errorf("--writes %q", *writes)
		}
		for _, sys := range s.systems {
			if k >= len(sys.kinds) {
				return nil, fmt.Errorf("--writes %q: not for %s", *writes, sys.name)
			}
		}
		s.kinds = append(s.kinds, k)
	}
	if fs.NArg() > 0 || len(s.systems) == 0 || s.runs < 1 || s.duration <= 0 || s.warmup < 0 || s.outstanding < 1 {
		return nil, errors.New("no --system, unknown arguments, or --runs, --duration, --outstanding not positive")
	}
	return s, nil
}

// numbers reads a list of positive numbers.
func numbers(list string) (out []int, err error) {
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q are not positive numbers", list)
		}
		out = append(out, n)
	}
	return out, nil
}

func parseSystem(v string) (system, error) {
	name, list, ok := strings.Cut(v, "=")
	if !ok {
		return system{}, fmt.Errorf("%q is not NAME=ADDRESS,...", v)
	}
	s := system{name: name, kinds: registrarKinds}
	for text := range strings.SplitSeq(list, ",") {
		scheme, address, _ := strings.Cut(text, "://")
		if _, _, err := net.SplitHostPort(address); err != nil {
			return s, err
		}
		switch scheme {
		case "tcp":
		case "etcd":
			s.kinds = etcdKinds
		default:
			return s, fmt.Errorf("%q is neither tcp:// nor etcd://", text)
		}
		s.addresses = append(s.addresses, address)
	}
	return s, nil
}

func reportWrites(out io.Writer, s *writeSettings, sys *system, k, clients int, results []result) error {
	kind := &sys.kinds[k]
	row := writeRow{
		System: sys.name, Kind: kind.name, Clients: clients, Outstanding: s.outstanding,
		Rate:   median(results, func(r result) float64 { return r.rate }),
		P50:    median(results, func(r result) float64 { return r.p50.Seconds() }),
		P99:    median(results, func(r result) float64 { return r.p99.Seconds() }),
		CPU:    median(results, func(r result) float64 { return r.cpu.Seconds() }),
		OwnCPU: median(results, func(r result) float64 { return r.own.Seconds() }),
	}
	row.Updates = row.Rate * float64(kind.updates)
	for _, r := range results {
		row.Rates = append(row.Rates, r.rate)
	}
	if s.json {
		return json.NewEncoder(out).Encode(row)
	}
	cpu := "-"
	if row.CPU > 0 {
		cpu = fmt.Sprintf("%.1f + %.1f µs", row.CPU*1e6, row.OwnCPU*1e6)
	}
	_, err := fmt.Fprintf(out, "| %s | %s | %d | %d | %.0f | %.0f | %.0f µs | %.0f µs | %s |\n",
		row.System, row.Kind, row.Clients, row.Outstanding, row.Rate, row.Updates, row.P50*1e6, row.P99*1e6, cpu)
	return err
}

// registrarKinds: new elements, which are deregistered before the next, some that
// register again with another load each time, and new ones that stay.
var registrarKinds = []kind{
	{"new element", 2, 2, openRegistrations(true, false)},
	{"element again", 1, 1, openRegistrations(false, false)},
	{"one more element", 1, 1, openRegistrations(true, true)},
}

// registrationLink is a host with some elements, one for each request outstanding,
// over bare TCP.
type registrationLink struct {
	stream
	fresh    bool // a new one each time
	stays    bool // until undo
	elements []param.PoolElement
	before   []param.PEID // each one's
	sent     int          // requests
	answered int          // of them
	answers  int          // in one receive

	// Scratch.
	out, want    []byte
	register     asap.Registration
	registered   asap.RegistrationResponse
	deregister   asap.Deregistration
	deregistered asap.DeregistrationResponse
}

// registrationsPool is where they register.
const registrationsPool = param.PoolHandle("registrations")

func openRegistrations(fresh, stays bool) func(ctx context.Context, address string, client, outstanding int) (link, error) {
	return func(ctx context.Context, address string, client, outstanding int) (link, error) {
		s, err := dialStream(ctx, address)
		if err != nil {
			return nil, err
		}
		own, err := netip.ParseAddrPort(s.LocalAddr().String())
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		if s.Conn, err = bare(s.Conn); err != nil {
			return nil, err
		}
		r := &registrationLink{stream: s, fresh: fresh, stays: stays}
		r.register.Handle, r.registered.Handle = registrationsPool, registrationsPool
		r.deregister.Handle, r.deregistered.Handle = registrationsPool, registrationsPool
		for i := range outstanding {
			r.before = append(r.before, param.PEID((client*outstanding+i+1)<<20))
			r.elements = append(r.elements, param.PoolElement{
				ID:     r.before[i],
				Life:   life,
				User:   param.Transport{Type: param.TypeTCPTransport, Port: 7, Addrs: []netip.Addr{own.Addr()}},
				Policy: param.Policy{Type: param.LeastUsed},
			})
		}
		return r, nil
	}
}

// place returns the element that a request is about, and whether the request takes it
// away.
func (r *registrationLink) place(request int) (e *param.PoolElement, undo bool) {
	n := len(r.elements)
	return &r.elements[request%n], r.fresh && !r.stays && request/n%2 == 1
}

func (r *registrationLink) send(n int) (err error) {
	r.out = r.out[:0]
	for range n {
		e, undo := r.place(r.sent)
		r.sent++
		if undo {
			r.deregister.ID = e.ID
			r.out, err = r.deregister.Append(r.out)
		} else {
			if r.fresh {
				e.ID++
			}
			e.Policy.Load++
			r.register.Element = *e
			r.out, err = r.register.Append(r.out)
		}
		if err != nil {
			return err
		}
	}
	return r.flush()
}

func (r *registrationLink) flush() error {
	if len(r.out) == 0 {
		return nil
	}
	_, err := r.Write(r.out)
	return err
}

func (r *registrationLink) receive() (int, error) {
	r.answers = 0
	err := r.each(r.take)
	return r.answers, err
}

// take takes the answer to the oldest request, or a keep-alive, which it acknowledges.
func (r *registrationLink) take(message []byte) (err error) {
	e, undo := r.place(r.answered)
	if undo {
		r.deregistered.ID = e.ID
		r.want, err = r.deregistered.Append(r.want[:0])
	} else {
		r.registered.ID = e.ID
		r.want, err = r.registered.Append(r.want[:0])
	}
	if err != nil {
		return err
	}
	if bytes.Equal(message, r.want) {
		r.answered++
		r.answers++
		return nil
	}
	return r.acknowledge(message)
}

// acknowledge answers a keep-alive. Anything else is an error.
func (r *registrationLink) acknowledge(message []byte) error {
	answer, _, err := asap.Decode(message)
	if err != nil {
		return fmt.Errorf("registrar's message % x: %w", message, err)
	}
	a, ok := answer.(*asap.EndpointKeepAlive)
	if !ok {
		return fmt.Errorf("the answer is %s %+v", answer.Type(), answer)
	}
	if r.out, err = (&asap.EndpointKeepAliveAck{Handle: a.Handle, ID: a.ID}).Append(r.out[:0]); err != nil {
		return err
	}
	return r.flush()
}

// undo deregisters elements that have stayed.
func (r *registrationLink) undo() (err error) {
	if !r.stays {
		return nil
	}
	for i, e := range r.elements {
		for r.before[i] < e.ID {
			r.out = r.out[:0]
			waiting := 0
			for ; waiting < window && r.before[i] < e.ID; waiting++ {
				r.before[i]++
				r.deregister.ID = r.before[i]
				if r.out, err = r.deregister.Append(r.out); err != nil {
					return err
				}
			}
			if err := r.flush(); err != nil {
				return err
			}
			for began := time.Now(); waiting > 0; {
				if time.Since(began) > patience {
					return fmt.Errorf("no answer for %s", patience)
				}
				if err := r.each(func(message []byte) error {
					if asap.MessageType(message[0]) == asap.TypeDeregistrationResponse {
						waiting--
						return nil
					}
					return r.acknowledge(message)
				}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
