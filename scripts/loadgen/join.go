package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// joinCommand starts a ring of registrars that know many elements, kills the last of
// them, to which none has registered, starts it again with nothing on disk, and
// measures what its return takes:
//
//	loadgen join --rspd bin/rspd --in NAMESPACE=ADDRESS --in ... --elements 1000=3 --elements 100000=3
//
// The elements have the first registrar as home. Meanwhile one element registers again
// and again at the second.
const joinCommand = "join"

const (
	// joinConnections is over how many connections the elements register.
	joinConnections = 8
	// joinPatience is for everything that the return of one registrar takes.
	joinPatience = 5 * time.Minute
	// againPause is the time between two registrations of the same element.
	againPause = 10 * time.Millisecond
	// joinRest is the time from when a registrar serves until its memory is looked
	// at.
	joinRest = time.Second
)

// joinFlags keep keep-alives and bounds out of the measurement.
const joinFlags = "--log-format json --keep-alive-interval 1h --tombstone-life 6h --limit-elements %[1]d --limit-elements-per-client %[1]d"

type join struct {
	cluster
	sizes []joinSize
}

// joinSize is a ring that is measured.
type joinSize struct {
	elements, runs int
}

// joined is what the return of a registrar took.
type joined struct {
	found, serves  time.Duration // from its start until it is in a view with others, and until it serves
	octets         int64         // exchanged
	resident       int64         // octets of memory
	p50, p99, most time.Duration // that a registration took meanwhile
}

func runJoin(ctx context.Context, args []string, out io.Writer) error {
	j := &join{}
	fs := flag.NewFlagSet("loadgen "+joinCommand, flag.ContinueOnError)
	j.declare(fs)
	fs.Func("elements", "`N=RUNS`: elements that the ring knows, and how often it is measured; repeatable", func(v string) error {
		size, err := parseJoinSize(v)
		j.sizes = append(j.sizes, size)
		return err
	})
	if err := fs.Parse(args); err != nil {
		return err
	}
	if len(j.sizes) == 0 {
		return errors.New("no --elements")
	}
	if err := j.open(); err != nil {
		return err
	}
	defer j.close()
	if _, err := io.WriteString(out, joinHeader); err != nil {
		return err
	}
	flags := j.flags
	for _, size := range j.sizes {
		j.flags = append(strings.Fields(fmt.Sprintf(joinFlags, size.elements+1)), flags...)
		all, err := j.measure(ctx, size)
		if err != nil {
			return fmt.Errorf("%d elements: %w", size.elements, err)
		}
		if _, err := io.WriteString(out, joinRow(size, all)); err != nil {
			return err
		}
	}
	return nil
}

func parseJoinSize(v string) (s joinSize, err error) {
	elements, runs, _ := strings.Cut(v, "=")
	var err1, err2 error
	s.elements, err1 = strconv.Atoi(elements)
	s.runs, err2 = strconv.Atoi(runs)
	if err1 != nil || err2 != nil || s.elements < 1 || s.runs < 1 {
		return s, fmt.Errorf("%q is not N=RUNS, both positive", v)
	}
	return s, nil
}

const joinHeader = "| elements | times | until it is in the view | until it serves | octets exchanged | its memory | registrations meanwhile: p50 | p99 | longest |\n" +
	"|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"

// joinRow is a row of the report: medians.
func joinRow(size joinSize, all []joined) string {
	ms := func(get func(joined) time.Duration) float64 {
		return float64(median(all, get)) / float64(time.Millisecond)
	}
	return fmt.Sprintf("| %d | %d | %.0f ms | %.0f ms | %d | %.1f MiB | %.1f ms | %.1f ms | %.1f ms |\n",
		size.elements, len(all),
		ms(func(r joined) time.Duration { return r.found }),
		ms(func(r joined) time.Duration { return r.serves }),
		median(all, func(r joined) int64 { return r.octets }),
		float64(median(all, func(r joined) int64 { return r.resident }))/(1<<20),
		ms(func(r joined) time.Duration { return r.p50 }),
		ms(func(r joined) time.Duration { return r.p99 }),
		ms(func(r joined) time.Duration { return r.most }))
}

// measure starts a ring that knows so many elements, and kills and starts its last
// registrar again.
func (j *join) measure(ctx context.Context, size joinSize) (all []joined, err error) {
	var registered []*elements
	defer func() {
		j.stop()
		for _, e := range registered {
			_ = e.close() // its connection has been cut
		}
	}()
	if err := j.startAll(); err != nil {
		return nil, err
	}
	if err := j.whole(ctx); err != nil {
		return nil, err
	}
	if registered, err = j.fill(ctx, size.elements); err != nil {
		return nil, err
	}
	again, err := j.register(ctx, 1, "again", 1)
	if err != nil {
		return nil, err
	}
	registered = append(registered, again)
	for n := range size.runs {
		one, err := j.once(ctx, size.elements+1, again)
		if err != nil {
			return nil, fmt.Errorf("kill %d: %w", n+1, err)
		}
		all = append(all, one)
	}
	return all, nil
}

// fill registers elements at the first registrar, over some connections, each with a
// pool of its own.
func (j *join) fill(ctx context.Context, n int) (registered []*elements, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	each := make([]*elements, min(joinConnections, n))
	var running sync.WaitGroup
	for i := range each {
		running.Go(func() {
			count := (i+1)*n/len(each) - i*n/len(each)
			e, err := j.register(ctx, 0, param.PoolHandle(fmt.Sprintf("join-%d", i+1)), count)
			if err != nil {
				cancel(err)
			}
			each[i] = e
		})
	}
	running.Wait()
	for _, e := range each {
		if e != nil {
			registered = append(registered, e)
		}
	}
	return registered, context.Cause(ctx)
}

// once kills the last registrar, starts it again when the others go on without it,
// and waits until it serves. It has to know so many elements then.
func (j *join) once(ctx context.Context, elements int, again *elements) (r joined, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, joinPatience, fmt.Errorf("it has not come back within %s", joinPatience))
	defer cancel()
	last := len(j.places) - 1
	if err := j.whole(ctx); err != nil {
		return r, err
	}
	if err := j.kill(last); err != nil {
		return r, err
	}
	if err := j.whole(ctx); err != nil {
		return r, err
	}

	over := make(chan struct{})
	var registrations sync.WaitGroup
	times := hdrhistogram.New(int64(time.Microsecond), int64(joinPatience), 3)
	var failed error
	registrations.Go(func() { failed = registerAgain(ctx, again, over, times) })
	err = j.comeBack(ctx, last, elements, &r)
	close(over)
	if err != nil {
		cancel()
	}
	registrations.Wait()
	if err != nil {
		return r, err
	}
	if failed != nil {
		return r, fmt.Errorf("registrations meanwhile: %w", failed)
	}
	r.p50, r.p99 = time.Duration(times.ValueAtQuantile(50)), time.Duration(times.ValueAtQuantile(99))
	r.most = time.Duration(times.Max())
	return r, nil
}

// comeBack starts a registrar and waits until it serves, and its memory can be looked
// at.
func (j *join) comeBack(ctx context.Context, i, elements int, r *joined) error {
	log := &joinLog{to: j.log, serves: make(chan time.Time, 1)}
	started := time.Now()
	if err := j.start(i, log); err != nil {
		return err
	}
	select {
	case at := <-log.serves:
		r.found, r.serves, r.octets = log.found.Sub(started), at.Sub(started), log.octets
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-time.After(joinRest):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", j.running[i].Process.Pid))
	if err != nil {
		return err
	}
	if r.resident, err = parseMemory(string(status)); err != nil {
		return err
	}
	s, err := j.clients[i].Status(ctx)
	if err != nil {
		return err
	}
	if s.Elements != elements {
		return fmt.Errorf("it knows %d elements, not %d", s.Elements, elements)
	}
	return nil
}

// registerAgain lets the only element register again every againPause, whether or not
// answers come, until it is over and the last is answered. It records how long each
// took, as of when it was due. Each has another lifetime than the one before.
func registerAgain(ctx context.Context, e *elements, over <-chan struct{}, times *hdrhistogram.Histogram) error {
	pause := time.NewTicker(againPause)
	defer pause.Stop()
	begin, sent, answered := time.Now(), 0, 0
	due := func(n int) time.Time { return begin.Add(time.Duration(n) * againPause) }
	for over != nil || answered < sent {
		select {
		case m := <-e.responses:
			if err := checkRegistered(m); err != nil {
				return err
			}
			_ = times.RecordValue(int64(time.Since(due(answered)))) // ctx ends before it is too long
			answered++
		case <-e.failed:
			return e.err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-over:
			over = nil
		case <-pause.C:
			for ; over != nil && !due(sent).After(time.Now()); sent++ {
				registration := asap.Registration{Handle: e.pool, Element: element(1, e.conn, false)}
				registration.Element.Life += param.Life(1 + sent%2)
				b, err := registration.Append(nil)
				if err != nil {
					return err
				}
				if err := e.send(transport.Message{Data: b}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// joinLog passes on the log of a registrar that starts, in JSON, and notes what it
// says about its way into the ring. One goroutine writes to it; found and octets may be
// read after serves.
type joinLog struct {
	to     io.Writer
	line   []byte
	found  time.Time      // when it was in a view with others
	octets int64          // exchanged
	serves chan time.Time // when it did; room for one
	served bool
}

func (l *joinLog) Write(b []byte) (int, error) {
	now := time.Now()
	if !l.served {
		l.line = append(l.line, b...)
		for {
			line, rest, whole := bytes.Cut(l.line, []byte{'\n'})
			if !whole {
				break
			}
			l.take(line, now)
			l.line = rest
		}
	}
	return l.to.Write(b)
}

func (l *joinLog) take(line []byte, now time.Time) {
	var entry struct {
		Message string `json:"msg"`
		Cause   string `json:"cause"`
		Octets  int64  `json:"octets"`
	}
	if l.served || json.Unmarshal(line, &entry) != nil {
		return // what is no entry is in the file
	}
	switch entry.Message {
	case "ring: new view":
		// The first one is its own.
		if l.found.IsZero() && entry.Cause != "start" {
			l.found = now
		}
	case "ring: sides have met":
		l.octets += entry.Octets
	case "serving":
		l.served = true
		l.serves <- now
	}
}

// parseMemory returns from /proc/PID/status how many octets a process has in memory.
func parseMemory(status string) (int64, error) {
	for line := range strings.Lines(status) {
		value, ok := strings.CutPrefix(line, "VmRSS:")
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("can't read memory in %q", line)
		}
		return kib << 10, nil
	}
	return 0, errors.New("no memory in the status of a process")
}
