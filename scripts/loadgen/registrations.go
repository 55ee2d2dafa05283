package main

import (
	"bufio"
	"context"
	"encoding/binary"
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
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// registrationsCommand measures how fast a group of servers acknowledges writes:
//
//	loadgen registrations --system ring=tcp://10.0.0.1:3863,tcp://10.0.0.2:3863 \
//	        --system etcd=etcd://10.0.0.1:2379,etcd://10.0.0.2:2379 --clients 1,64
//
// It is a closed loop: each client has a connection to one of the servers, writes,
// waits for the answer, and writes again. Systems are measured in turns.
const registrationsCommand = "registrations"

// A writer is one client of one system.
type writer interface {
	// write does it once, and waits for the answer.
	write() error
	// undo takes away what write left, and says how many more writes that took.
	undo() (int, error)
	Close() error
}

// kind is a way to write.
type kind struct {
	name string
	open func(ctx context.Context, address string, client int) (writer, error)
}

// system is a group of servers that know the same.
type system struct {
	name      string
	addresses []string
	kinds     []kind
}

// writeResult is what one measurement of a system found.
type writeResult struct {
	rate    float64 // acknowledged writes per second
	updates float64 // the same with what undid them
	p50     time.Duration
	p99     time.Duration
}

// writeRow is one row of the report: medians of the runs.
type writeRow struct {
	System  string    `json:"system"`
	Kind    string    `json:"kind"`
	Clients int       `json:"clients"`
	Rate    float64   `json:"acknowledged_per_second"`
	Updates float64   `json:"updates_per_second"`
	P50     float64   `json:"p50_seconds"`
	P99     float64   `json:"p99_seconds"`
	Rates   []float64 `json:"runs"`
}

// writeSettings are the flags of registrationsCommand.
type writeSettings struct {
	systems  []system
	clients  []int
	warmup   time.Duration
	duration time.Duration
	runs     int
	json     bool
}

func registrations(ctx context.Context, args []string, out io.Writer) error {
	s, err := parseWrites(args)
	if err != nil {
		return err
	}
	if !s.json {
		_, err := fmt.Fprintf(out, "| system | write | clients | acknowledged/s | updates/s | p50 | p99 |\n|---|---|---:|---:|---:|---:|---:|\n")
		if err != nil {
			return err
		}
	}
	for _, clients := range s.clients {
		for k := range 2 {
			results := make([][]writeResult, len(s.systems))
			for range s.runs {
				for i, sys := range s.systems {
					r, err := measureWrites(ctx, &sys, sys.kinds[k], clients, s)
					if err != nil {
						return fmt.Errorf("%s, %s: %w", sys.name, sys.kinds[k].name, err)
					}
					results[i] = append(results[i], r)
				}
			}
			for i, sys := range s.systems {
				if err := reportWrites(out, s, sys.name, sys.kinds[k].name, clients, results[i]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func parseWrites(args []string) (*writeSettings, error) {
	s := &writeSettings{}
	fs := flag.NewFlagSet("loadgen "+registrationsCommand, flag.ContinueOnError)
	fs.Func("system", "a group of servers, `NAME=tcp://HOST:PORT,...` (registrars) or NAME=etcd://HOST:PORT,...; repeatable", func(v string) error {
		sys, err := parseSystem(v)
		s.systems = append(s.systems, sys)
		return err
	})
	clients := fs.String("clients", "1,64", "how many clients, `N,N`")
	fs.DurationVar(&s.warmup, "warmup", 300*time.Millisecond, "time before each measurement")
	fs.DurationVar(&s.duration, "duration", 2*time.Second, "time of each measurement")
	fs.IntVar(&s.runs, "runs", 3, "measurements of each; the medians are printed")
	fs.BoolVar(&s.json, "json", false, "print rows as JSON, one per line")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	for text := range strings.SplitSeq(*clients, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("--clients %q", *clients)
		}
		s.clients = append(s.clients, n)
	}
	if fs.NArg() > 0 || len(s.systems) == 0 || s.runs < 1 || s.duration <= 0 || s.warmup < 0 {
		return nil, errors.New("no --system, unknown arguments, or --runs, --duration not positive")
	}
	return s, nil
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

func reportWrites(out io.Writer, s *writeSettings, name, kind string, clients int, results []writeResult) error {
	middle := func(get func(writeResult) float64) float64 {
		var values []float64
		for _, r := range results {
			values = append(values, get(r))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	row := writeRow{
		System: name, Kind: kind, Clients: clients,
		Rate:    middle(func(r writeResult) float64 { return r.rate }),
		Updates: middle(func(r writeResult) float64 { return r.updates }),
		P50:     middle(func(r writeResult) float64 { return r.p50.Seconds() }),
		P99:     middle(func(r writeResult) float64 { return r.p99.Seconds() }),
	}
	for _, r := range results {
		row.Rates = append(row.Rates, r.rate)
	}
	if s.json {
		return json.NewEncoder(out).Encode(row)
	}
	_, err := fmt.Fprintf(out, "| %s | %s | %d | %.0f | %.0f | %.0f µs | %.0f µs |\n",
		row.System, row.Kind, row.Clients, row.Rate, row.Updates, row.P50*1e6, row.P99*1e6)
	return err
}

// measureWrites loads a system once, over new connections.
func measureWrites(ctx context.Context, sys *system, k kind, clients int, s *writeSettings) (writeResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var writers []writer
	defer func() {
		for _, w := range writers {
			_ = w.Close() // the second time for some
		}
	}()
	for i := range clients {
		dialCtx, cancel := context.WithTimeout(ctx, patience)
		w, err := k.open(dialCtx, sys.addresses[i%len(sys.addresses)], i)
		cancel()
		if err != nil {
			return writeResult{}, err
		}
		writers = append(writers, w)
	}
	// Ends what is in progress when one fails or we are interrupted.
	defer context.AfterFunc(ctx, func() {
		for _, w := range writers {
			_ = w.Close()
		}
	})()

	begin := time.Now().Add(s.warmup)
	end := begin.Add(s.duration)
	defer time.AfterFunc(time.Until(end)+patience, func() {
		cancel(fmt.Errorf("no answer for %s", patience))
	}).Stop()
	counts := make([]writeCount, clients)
	var loops sync.WaitGroup
	for i, w := range writers {
		counts[i].times = hdrhistogram.New(int64(time.Microsecond), int64(time.Minute), 3)
		loops.Go(func() {
			if err := counts[i].loop(w, begin, end); err != nil {
				cancel(err)
			}
		})
	}
	loops.Wait()
	if ctx.Err() != nil {
		return writeResult{}, context.Cause(ctx)
	}
	all, updates := counts[0].times, counts[0].updates
	for i := range counts[1:] {
		all.Merge(counts[i+1].times)
		updates += counts[i+1].updates
	}
	if all.TotalCount() == 0 {
		return writeResult{}, errors.New("no answer within the measurement")
	}
	return writeResult{
		rate:    float64(all.TotalCount()) / s.duration.Seconds(),
		updates: float64(updates) / s.duration.Seconds(),
		p50:     time.Duration(all.ValueAtQuantile(50)),
		p99:     time.Duration(all.ValueAtQuantile(99)),
	}, nil
}

// writeCount is what one client counted.
type writeCount struct {
	times   *hdrhistogram.Histogram
	updates int
}

func (c *writeCount) loop(w writer, begin, end time.Time) error {
	for {
		start := time.Now()
		if start.After(end) {
			return nil
		}
		if err := w.write(); err != nil {
			return err
		}
		done := time.Now()
		more, err := w.undo()
		if err != nil {
			return err
		}
		if start.After(begin) && done.Before(end) {
			_ = c.times.RecordValue(int64(done.Sub(start))) // longer than a minute is an error anyway
			c.updates += 1 + more
		}
	}
}

// registrarKinds: a new element, which is deregistered before the next, and one that
// registers again with another load each time.
var registrarKinds = []kind{
	{"new element", func(ctx context.Context, address string, client int) (writer, error) {
		return openRegistrations(ctx, address, client, true)
	}},
	{"element again", func(ctx context.Context, address string, client int) (writer, error) {
		return openRegistrations(ctx, address, client, false)
	}},
}

// registrationWriter is one pool element, over bare TCP.
type registrationWriter struct {
	net.Conn
	in      *bufio.Reader
	buf     []byte
	element param.PoolElement
	fresh   bool
}

// registrationsPool is where they register.
const registrationsPool = param.PoolHandle("registrations")

func openRegistrations(ctx context.Context, address string, client int, fresh bool) (writer, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	own, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	w := &registrationWriter{Conn: conn, in: bufio.NewReader(conn), buf: make([]byte, 0, transport.MaxMessage), fresh: fresh}
	w.element = param.PoolElement{
		ID:     param.PEID(client+1) << 16,
		Life:   life,
		User:   param.Transport{Type: param.TypeTCPTransport, Port: 7, Addrs: []netip.Addr{own.Addr()}},
		Policy: param.Policy{Type: param.LeastUsed},
	}
	return w, nil
}

func (w *registrationWriter) write() error {
	if w.fresh {
		w.element.ID++
	}
	w.element.Policy.Load++
	answer, err := w.ask(&asap.Registration{Handle: registrationsPool, Element: w.element}, asap.TypeRegistrationResponse)
	if err != nil {
		return err
	}
	if r := answer.(*asap.RegistrationResponse); r.Reject || r.Error != nil || r.ID != w.element.ID {
		return fmt.Errorf("a registration was answered by %+v", r)
	}
	return nil
}

func (w *registrationWriter) undo() (int, error) {
	if !w.fresh {
		return 0, nil
	}
	answer, err := w.ask(&asap.Deregistration{Handle: registrationsPool, ID: w.element.ID}, asap.TypeDeregistrationResponse)
	if err != nil {
		return 0, err
	}
	if r := answer.(*asap.DeregistrationResponse); r.Error != nil {
		return 0, fmt.Errorf("a deregistration was answered by %+v", r)
	}
	return 1, nil
}

// ask sends a request and returns the answer of the type; keep-alives before it are
// acknowledged.
func (w *registrationWriter) ask(request asap.Message, want asap.MessageType) (asap.Message, error) {
	if err := w.send(request); err != nil {
		return nil, err
	}
	for {
		head, err := w.in.Peek(4)
		if err != nil {
			return nil, err
		}
		size := (int(binary.BigEndian.Uint16(head[2:])) + 3) &^ 3
		message := w.buf[:max(size, 4)]
		if _, err := io.ReadFull(w.in, message); err != nil {
			return nil, err
		}
		answer, _, err := asap.Decode(message)
		if err != nil {
			return nil, fmt.Errorf("registrar's message % x: %w", message, err)
		}
		switch a := answer.(type) {
		case *asap.EndpointKeepAlive:
			if err := w.send(&asap.EndpointKeepAliveAck{Handle: a.Handle, ID: a.ID}); err != nil {
				return nil, err
			}
		default:
			if answer.Type() != want {
				return nil, fmt.Errorf("the answer is %s %+v", answer.Type(), answer)
			}
			return answer, nil
		}
	}
}

func (w *registrationWriter) send(m asap.Message) error {
	b, err := m.Append(w.buf[:0])
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}
