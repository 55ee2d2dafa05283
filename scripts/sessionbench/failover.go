package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rserpool/asap/transport"
	"rserpool/pooluser"
	"rserpool/scripts/stage"
)

// presets are the timers that are measured, and how many lanes measure at a time with
// each: with longer times more, so that it ends.
var presets = []struct {
	name   string
	timers pooluser.Timers
	lanes  int
}{
	{"fast", pooluser.Fast, 1},
	{"default", pooluser.Default, 4},
	{"patient", pooluser.Patient, 10},
}

// fault is what happens to an element.
type fault struct {
	name string
	do   func(*element, context.Context) error
	// silent: the user has to find out by itself, as no connection is closed.
	silent bool
}

var faults = []fault{
	{"kill -9", (*element).kill, false},
	{"SIGSTOP", (*element).stop, true},
	{"silent cut", (*element).cut, true},
}

// place is where an element runs: a network namespace made by 'ip netns', "" for this
// one, and an address in it.
type place struct{ namespace, address string }

type failover struct {
	registrar transport.Endpoint
	network   string
	places    []place
	count     int
	pace      time.Duration
	label     string
	json      bool

	self  string // this program
	stage *stage.Stage
}

func runFailover(ctx context.Context, args []string, out io.Writer) error {
	f := &failover{}
	fs := flag.NewFlagSet("sessionbench failover", flag.ContinueOnError)
	registrarFlag(fs, &f.registrar)
	fs.StringVar(&f.network, "network", transport.TCP, "network of the sessions, tcp or sctp")
	fs.Func("in", "network namespace and address of an element, `NAMESPACE=ADDRESS`; two for each lane, as many lanes as there are", func(v string) error {
		namespace, address, ok := strings.Cut(v, "=")
		if !ok {
			return fmt.Errorf("%q is not NAMESPACE=ADDRESS", v)
		}
		f.places = append(f.places, place{namespace, address})
		return nil
	})
	fs.IntVar(&f.count, "count", 200, "failovers of each kind")
	fs.DurationVar(&f.pace, "pace", time.Millisecond, "time from one request to the next")
	chosen := fs.String("presets", "fast,default,patient", "timers to measure")
	kinds := fs.String("faults", "kill -9,SIGSTOP,silent cut", "faults to measure; the last needs namespaces")
	fs.StringVar(&f.label, "label", "TCP", "first column of the table")
	fs.BoolVar(&f.json, "json", false, "print a JSON object for each row instead of the table")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if len(f.places) < 2 || f.count < 1 {
		return errors.New("two --in at least, and --count must be positive")
	}
	var err error
	if f.self, err = os.Executable(); err != nil {
		return err
	}
	logs, err := os.MkdirTemp("", "sessionbench-")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	f.stage = stage.New(logs)
	err = f.measure(ctx, strings.Split(*chosen, ","), strings.Split(*kinds, ","), out)
	cancel()
	f.stage.Wait()
	if err != nil {
		return fmt.Errorf("%w\n%s(logs: %s)", err, f.stage.Tails(5), logs)
	}
	return os.RemoveAll(logs)
}

// row is one line of the table.
type row struct {
	Over, Preset, Fault string
	Times               int64
	P50, P99, Longest   time.Duration
	ByTimers            string
}

// print prints the row, or with nil the head of the table.
func (f *failover) print(out io.Writer, r *row) error {
	var err error
	switch {
	case f.json && r != nil:
		err = json.NewEncoder(out).Encode(r)
	case f.json:
	case r == nil:
		_, err = fmt.Fprint(out, "| over | preset | fault | times | p50 | p99 | longest | by the timers |\n|---|---|---|---:|---:|---:|---:|---|\n")
	default:
		ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
		_, err = fmt.Fprintf(out, "| %s | %s | %s | %d | %.1f ms | %.1f ms | %.1f ms | %s |\n",
			r.Over, r.Preset, r.Fault, r.Times, ms(r.P50), ms(r.P99), ms(r.Longest), r.ByTimers)
	}
	return err
}

func (f *failover) measure(ctx context.Context, chosen, kinds []string, out io.Writer) error {
	if err := f.print(out, nil); err != nil {
		return err
	}
	for i, p := range presets {
		if slices.Contains(chosen, p.name) {
			if err := f.preset(ctx, i, kinds, out); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	return nil
}

// preset measures with one preset of timers.
func (f *failover) preset(ctx context.Context, i int, kinds []string, out io.Writer) (err error) {
	p := presets[i]
	var lanes []*lane
	defer func() {
		for _, l := range lanes {
			err = errors.Join(err, l.close())
		}
	}()
	for i := range min(p.lanes, len(f.places)/2, f.count) {
		l, err := f.newLane(ctx, i, p.timers)
		if err != nil {
			return err
		}
		lanes = append(lanes, l)
	}
	for _, kind := range faults {
		if !slices.Contains(kinds, kind.name) {
			continue
		}
		h, err := f.together(ctx, lanes, kind)
		if err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
		at := func(q float64) time.Duration { return time.Duration(h.ValueAtQuantile(q)) }
		r := row{f.label, p.name, kind.name, h.TotalCount(), at(50), at(99), at(100), "set-up of a connection"}
		if kind.silent {
			r.ByTimers = fmt.Sprintf("%v silence + set-up", p.timers.Silence)
		}
		if err := f.print(out, &r); err != nil {
			return err
		}
	}
	return nil
}

// together lets the lanes fail as often as wanted, all together, and returns how long
// their users waited.
func (f *failover) together(ctx context.Context, lanes []*lane, kind fault) (*hdrhistogram.Histogram, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	h := hdrhistogram.New(1000, int64(10*time.Minute), 3)
	var mu sync.Mutex
	left := f.count
	take := func() bool {
		mu.Lock()
		defer mu.Unlock()
		left--
		return left >= 0
	}
	var running sync.WaitGroup
	for _, l := range lanes {
		running.Go(func() {
			for take() {
				waited, err := l.once(ctx, kind)
				if err != nil {
					cancel(err)
					return
				}
				mu.Lock()
				_ = h.RecordValue(int64(waited)) // a failover that takes longer is an error
				mu.Unlock()
			}
		})
	}
	running.Wait()
	return h, context.Cause(ctx)
}

// element is one of the two of a lane.
type element struct {
	lane    *lane
	place   place
	id      uint32
	process *stage.Process
	isCut   bool
}

func (e *element) kill(context.Context) error { return e.process.Signal(os.Kill) }

func (e *element) cut(ctx context.Context) error {
	e.isCut = true
	return e.link(ctx, "down")
}

// link puts the interface of the element's namespace down or up.
func (e *element) link(ctx context.Context, state string) error {
	out, err := exec.CommandContext(ctx, "sh", "-c", "for i in $(ip -n \"$0\" -o link show type veth | sed 's/^[0-9]*: \\([^@:]*\\).*/\\1/'); do ip -n \"$0\" link set dev \"$i\" \"$1\"; done", e.place.namespace, state).CombinedOutput()
	if err != nil {
		return fmt.Errorf("link %s in %s: %w: %s", state, e.place.namespace, err, out)
	}
	return nil
}

// start starts the element's process, with a new identifier: it is another element.
func (e *element) start() (err error) {
	e.id = rand.Uint32() | 1
	f := e.lane.bench
	args := []string{f.self, elementCommand, "--registrar", f.registrar.String(), "--pool", e.lane.pool,
		"--listen", f.network + "://" + e.place.address, "--id", fmt.Sprint(e.id)}
	if e.place.namespace != "" {
		args = append([]string{"ip", "netns", "exec", e.place.namespace}, args...)
	}
	e.process, err = f.stage.Start(e.lane.ctx, e.lane.pool, args[0], args[1:]...)
	return err
}

// restart makes an element that had a fault a sound one.
func (e *element) restart() error {
	if e.isCut {
		if err := e.link(e.lane.ctx, "up"); err != nil {
			return err
		}
		e.isCut = false
	}
	select {
	case <-e.process.Done: // that was the fault
	default:
		if err := e.process.End(os.Kill); err != nil {
			return err
		}
	}
	return e.start()
}
