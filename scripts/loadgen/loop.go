package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// patience for one answer.
const patience = 10 * time.Second

// errNoAnswer: there is nothing to make figures of.
var errNoAnswer = errors.New("no answer within the measurement")

// A link is one connection of a closed loop. Answers come in the order of the
// requests.
type link interface {
	// send sends the next n requests.
	send(n int) error
	// receive waits and returns how many answers have come.
	receive() (int, error)
	Close() error
}

// load is a closed loop: each link keeps a number of requests outstanding and sends
// the next when an answer has come.
type load struct {
	open        func(ctx context.Context, i int) (link, error)
	links       int
	outstanding int // on each link
	// cycle is how many requests follow each other in each place; only the answer
	// to the first counts, the others take away what it left.
	cycle            int
	warmup, duration time.Duration
	pids             []int // of the servers, for their CPU time
}

// result is what one measurement found.
type result struct {
	rate     float64       // answers per second
	p50, p99 time.Duration // from request to answer
	cpu      time.Duration // of the servers, per answer; 0: not measured
	own      time.Duration // of the load, per answer
	answers  int64
}

// span is when answers count.
type span struct{ begin, end time.Time }

// run measures once, over new connections.
func (l *load) run(ctx context.Context) (result, error) {
	if ctx.Err() != nil {
		return result{}, context.Cause(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var links []link
	closeAll := func() {
		for _, k := range links {
			_ = k.Close() // the second time for some
		}
	}
	defer closeAll()
	for i := range l.links {
		dialCtx, done := context.WithTimeout(ctx, patience)
		k, err := l.open(dialCtx, i)
		done()
		if err != nil {
			return result{}, err
		}
		links = append(links, k)
	}
	begin := time.Now().Add(l.warmup)
	w := span{begin, begin.Add(l.duration)}
	defer time.AfterFunc(time.Until(w.end)+patience, func() {
		cancel(fmt.Errorf("no answer for %s", patience))
	}).Stop()
	var histograms []*hdrhistogram.Histogram
	var loops sync.WaitGroup
	start := func(links []link, run func(context.Context, []*pace) error) {
		h := hdrhistogram.New(int64(time.Microsecond), int64(time.Minute), 3)
		histograms = append(histograms, h)
		paces := make([]*pace, len(links))
		for i, k := range links {
			paces[i] = &pace{load: l, link: k, span: w, times: h, sent: make([]time.Time, l.outstanding)}
		}
		loops.Go(func() {
			if err := run(ctx, paces); err != nil {
				cancel(err)
			}
		})
	}
	if watched(links) {
		start(links, watch)
	} else {
		// Ends what is in progress when one fails or we are interrupted.
		defer context.AfterFunc(ctx, closeAll)()
		for i := range links {
			start(links[i:i+1], follow)
		}
	}
	servers, own, err := l.usage(ctx, w)
	loops.Wait()
	if ctx.Err() != nil {
		return result{}, context.Cause(ctx)
	}
	if err != nil {
		return result{}, err
	}
	for _, k := range links {
		if r, ok := k.(*registrationLink); ok {
			if err := r.undo(); err != nil {
				return result{}, fmt.Errorf("deregister: %w", err)
			}
		}
	}
	all := histograms[0]
	for _, h := range histograms[1:] {
		all.Merge(h)
	}
	n := all.TotalCount()
	if n == 0 {
		return result{}, errNoAnswer
	}
	return result{
		rate:    float64(n) / l.duration.Seconds(),
		p50:     time.Duration(all.ValueAtQuantile(50)),
		p99:     time.Duration(all.ValueAtQuantile(99)),
		cpu:     servers / time.Duration(n),
		own:     own / time.Duration(n),
		answers: n,
	}, nil
}

// pace is how far one link of the closed loop is. It keeps requests outstanding until
// the end and the cycle then under way is complete, and records the answers that come
// within the span.
type pace struct {
	*load
	link
	span
	times             *hdrhistogram.Histogram
	sent              []time.Time // by place
	requests, answers int
}

func (p *pace) start() error {
	now := time.Now()
	for i := range p.sent {
		p.sent[i] = now
	}
	p.requests = p.outstanding
	return p.send(p.outstanding)
}

// over reports whether there is nothing more to wait for.
func (p *pace) over() bool { return p.answers == p.requests }

// step takes answers, and sends the next requests.
func (p *pace) step() error {
	n, err := p.receive()
	if err != nil {
		return err
	}
	now := time.Now()
	over, before := now.After(p.end), p.requests
	for range n {
		place, round := p.answers%p.outstanding, p.answers/p.outstanding%p.cycle
		p.answers++
		if round == 0 && now.After(p.begin) && !over {
			_ = p.times.RecordValue(int64(now.Sub(p.sent[place]))) // over a minute: an error ends such runs anyway
		}
		if !over || p.requests%(p.outstanding*p.cycle) != 0 {
			p.sent[place] = now
			p.requests++
		}
	}
	return p.send(p.requests - before)
}

// follow runs links that wait by themselves, one after the other.
func follow(_ context.Context, paces []*pace) error {
	for _, p := range paces {
		if err := p.start(); err != nil {
			return err
		}
		for !p.over() {
			if err := p.step(); err != nil {
				return err
			}
		}
	}
	return nil
}

// usage waits until the window is over and returns the CPU time that was used in it,
// by the servers and by ourselves.
func (l *load) usage(ctx context.Context, w span) (servers, own time.Duration, err error) {
	sums := func(at time.Time) (servers, own time.Duration, err error) {
		select {
		case <-time.After(time.Until(at)):
		case <-ctx.Done():
			return 0, 0, nil // told by the caller
		}
		for _, pid := range l.pids {
			used, e := cpuOf(pid)
			servers += used
			err = errors.Join(err, e)
		}
		if len(l.pids) > 0 {
			var e error
			own, e = cpuOf(os.Getpid())
			err = errors.Join(err, e)
		}
		return servers, own, err
	}
	serversBefore, ownBefore, errBefore := sums(w.begin)
	servers, own, err = sums(w.end)
	return servers - serversBefore, own - ownBefore, errors.Join(errBefore, err)
}

// ticks is the unit of times in /proc, the same on all Linux machines for
// programs.
const ticks = 100

// cpuOf returns how much CPU time a process has used.
func cpuOf(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseCPU(string(stat))
}

// parseCPU returns the sum of user and system time, fields 14 and 15.
func parseCPU(stat string) (time.Duration, error) {
	// The second field, the program's name, can hold anything.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("can't read CPU times in %q", stat)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * time.Second / ticks, errors.Join(err1, err2)
}
