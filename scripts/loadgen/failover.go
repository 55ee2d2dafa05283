package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
	"rserpool/registrar/admin"
	"rserpool/registrar/admin/client"
)

// failoverCommand starts a ring of registrars, kills one after the other, and
// measures how long it takes until the others have a view without it, and until all
// its elements have another home:
//
//	loadgen failover --rspd bin/rspd --in NAMESPACE=ADDRESS --in ... --kills 100
//
// It runs in a network namespace that reaches the addresses. Times are from kill -9
// to the event at the last of the others, as a reader of its event stream sees it.
const failoverCommand = "failover"

// adminAddress and asapPort are where the registrars under test listen, the first in
// the namespace of each.
const (
	adminAddress = "127.0.0.1:3865"
	asapPort     = 3863
)

// place is where one registrar runs.
type place struct {
	namespace, address string
}

type failover struct {
	rspd     string
	places   []place
	elements int
	kills    int
	flags    []string
	log      *os.File

	running []*exec.Cmd
	clients []*client.Client
}

func runFailover(ctx context.Context, args []string, out io.Writer) error {
	f := &failover{}
	fs := flag.NewFlagSet("loadgen "+failoverCommand, flag.ContinueOnError)
	fs.StringVar(&f.rspd, "rspd", "bin/rspd", "the registrar's program")
	fs.Func("in", "network namespace and address of a registrar, `NAMESPACE=ADDRESS`; three or more", func(v string) error {
		name, address, ok := strings.Cut(v, "=")
		if !ok {
			return fmt.Errorf("%q is not NAMESPACE=ADDRESS", v)
		}
		f.places = append(f.places, place{name, address})
		return nil
	})
	fs.IntVar(&f.elements, "elements", 1000, "elements of the registrar that is killed")
	fs.IntVar(&f.kills, "kills", 100, "how often one is killed")
	flags := fs.String("rspd-flags", "", "further flags of the registrars, separated by blanks")
	logTo := fs.String("log", os.DevNull, "`file` for what the registrars log")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if len(f.places) < 3 || f.elements < 1 || f.kills < 1 {
		return errors.New("three --in at least; --elements and --kills must be positive")
	}
	f.flags = strings.Fields(*flags)
	var err error
	if f.log, err = os.Create(*logTo); err != nil {
		return err
	}
	defer f.log.Close()
	f.running = make([]*exec.Cmd, len(f.places))
	defer f.stop()
	for i, p := range f.places {
		c, err := client.New(adminAddress, &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return dialIn(ctx, p.namespace, address)
		}})
		if err != nil {
			return err
		}
		defer c.Close()
		f.clients = append(f.clients, c)
		if err := f.start(ctx, i); err != nil {
			return err
		}
	}
	views, takeovers := hdrhistogram.New(1000, int64(time.Minute), 3), hdrhistogram.New(1000, int64(time.Minute), 3)
	for n := range f.kills {
		view, takeover, err := f.once(ctx, n%len(f.places))
		if err != nil {
			return fmt.Errorf("kill %d: %w", n+1, err)
		}
		_ = views.RecordValue(int64(view)) // waited for less than a minute
		_ = takeovers.RecordValue(int64(takeover))
	}
	ms := func(h *hdrhistogram.Histogram, q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1e6 }
	_, err = fmt.Fprintf(out, "| from kill -9 to | kills | p50 | p99 | max |\n|---|---:|---:|---:|---:|\n"+
		"| the new view at all others | %d | %.1f ms | %.1f ms | %.1f ms |\n"+
		"| another home for its %d elements, at all others | %d | %.1f ms | %.1f ms | %.1f ms |\n",
		f.kills, ms(views, 50), ms(views, 99), ms(views, 100),
		f.elements, f.kills, ms(takeovers, 50), ms(takeovers, 99), ms(takeovers, 100))
	return err
}

func (f *failover) start(ctx context.Context, i int) error {
	p := f.places[i]
	args := []string{
		"netns", "exec", p.namespace, f.rspd,
		"--id", strconv.Itoa(i + 1), "--insecure", "--enrp-listen", "off",
		"--listen", fmt.Sprintf("tcp://%s:%d", p.address, asapPort),
		"--ring-listen", "tcp://" + p.address,
		"--admin", adminAddress,
	}
	for k, other := range f.places {
		if k != i {
			args = append(args, "--peer", "tcp://"+other.address)
		}
	}
	cmd := exec.CommandContext(ctx, "ip", append(args, f.flags...)...)
	cmd.Stdout, cmd.Stderr = f.log, f.log
	if err := cmd.Start(); err != nil {
		return err
	}
	f.running[i] = cmd
	return nil
}

func (f *failover) stop() {
	for _, cmd := range f.running {
		if cmd != nil {
			_ = cmd.Process.Kill() // it may have ended by itself
			_ = cmd.Wait()
		}
	}
}

// whole waits until all registrars are in one view and know the same.
func (f *failover) whole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		views := map[string]bool{}
		for _, c := range f.clients {
			r, err := c.Ring(ctx)
			if err != nil || !r.Synced || len(r.Members) != len(f.places) {
				views["none"] = true
				break
			}
			views[r.View] = true
		}
		if len(views) == 1 && !views["none"] {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the registrars don't come together: %w", ctx.Err())
		}
	}
}

// once kills a registrar that has elements, and starts it again.
func (f *failover) once(ctx context.Context, victim int) (view, takeover time.Duration, err error) {
	if err := f.whole(ctx); err != nil {
		return 0, 0, err
	}
	endpoint, err := transport.ParseEndpoint("tcp://"+f.places[victim].address, transport.TCP, asapPort)
	if err != nil {
		return 0, 0, err
	}
	elements, err := register(ctx, transport.NewNetworks(tcp.New()), endpoint, &settings{pool: "failover", register: f.elements})
	if err != nil {
		return 0, 0, err
	}
	defer elements.close() // its connection has been cut

	watched, cancel := context.WithTimeoutCause(ctx, 50*time.Second, errors.New("no event within 50 s"))
	defer cancel()
	var watching, ready sync.WaitGroup
	seen := make([]sight, len(f.places))
	for i, c := range f.clients {
		if i == victim {
			continue
		}
		ready.Add(1)
		watching.Go(func() {
			begun := sync.OnceFunc(ready.Done)
			defer begun()
			seen[i].err = c.Watch(watched, "", func(e admin.Event) error {
				begun()
				return seen[i].take(e, len(f.places)-1, f.elements)
			})
		})
	}
	ready.Wait()
	killed := time.Now()
	if err := f.running[victim].Process.Signal(syscall.SIGKILL); err != nil {
		return 0, 0, err
	}
	_ = f.running[victim].Wait() // it was killed
	watching.Wait()
	for i := range seen {
		if i == victim {
			continue
		}
		if !errors.Is(seen[i].err, errSeen) {
			return 0, 0, fmt.Errorf("registrar %d after the end of %d: %w; %d elements have moved", i+1, victim+1, seen[i].err, len(seen[i].moved))
		}
		view = max(view, seen[i].view.Sub(killed))
		takeover = max(takeover, seen[i].last.Sub(killed))
	}
	return view, takeover, f.start(ctx, victim)
}

// sight is what one of the others showed.
type sight struct {
	view  time.Time
	last  time.Time
	moved map[string]bool
	err   error
}

// errSeen ends a watch that has seen all.
var errSeen = errors.New("seen")

func (s *sight) take(e admin.Event, members, elements int) error {
	switch e.Type {
	case admin.EventView:
		if e.View != nil && len(e.View.Members) == members {
			s.view = time.Now()
		}
	case admin.EventMoved:
		if s.moved == nil {
			s.moved = make(map[string]bool)
		}
		s.moved[e.ID] = true
		s.last = time.Now()
	}
	if !s.view.IsZero() && len(s.moved) >= elements {
		return errSeen
	}
	return nil
}
