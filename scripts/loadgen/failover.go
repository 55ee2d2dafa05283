package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rserpool/registrar/admin"
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

type failover struct {
	cluster
	elements int
	kills    int
}

func runFailover(ctx context.Context, args []string, out io.Writer) error {
	f := &failover{}
	fs := flag.NewFlagSet("loadgen "+failoverCommand, flag.ContinueOnError)
	f.declare(fs)
	fs.IntVar(&f.elements, "elements", 1000, "elements of the registrar that is killed")
	fs.IntVar(&f.kills, "kills", 100, "how often one is killed")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if f.elements < 1 || f.kills < 1 {
		return errors.New("--elements and --kills must be positive")
	}
	if err := f.open(); err != nil {
		return err
	}
	defer f.close()
	if err := f.startAll(); err != nil {
		return err
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
	_, err := fmt.Fprintf(out, "| from kill -9 to | kills | p50 | p99 | max |\n|---|---:|---:|---:|---:|\n"+
		"| the new view at all others | %d | %.1f ms | %.1f ms | %.1f ms |\n"+
		"| another home for its %d elements, at all others | %d | %.1f ms | %.1f ms | %.1f ms |\n",
		f.kills, ms(views, 50), ms(views, 99), ms(views, 100),
		f.elements, f.kills, ms(takeovers, 50), ms(takeovers, 99), ms(takeovers, 100))
	return err
}

// once kills a registrar that has elements, and starts it again.
func (f *failover) once(ctx context.Context, victim int) (view, takeover time.Duration, err error) {
	if err := f.whole(ctx); err != nil {
		return 0, 0, err
	}
	elements, err := f.register(ctx, victim, "failover", f.elements)
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
	if err := f.kill(victim); err != nil {
		return 0, 0, err
	}
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
	return view, takeover, f.start(victim, f.log)
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
