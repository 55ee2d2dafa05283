package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rserpool/asap"
	"rserpool/asap/transport"
)

// result is what one measurement found.
type result struct {
	rate     float64       // answers per second
	p50, p99 time.Duration // from request to answer
	cpu      time.Duration // of the server, per answer
	answers  int64
}

// link is a connection as the load needs it.
type link interface {
	// send sends n requests.
	send(n int) error
	// receive waits and returns how many answers have come.
	receive() (int, error)
	Close() error
}

// measure loads a target once, over new connections.
func measure(ctx context.Context, networks *transport.Networks, t *target, request []byte, s *settings) (result, error) {
	if ctx.Err() != nil {
		return result{}, context.Cause(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var links []link
	defer func() {
		for _, l := range links {
			_ = l.Close() // the second time for some
		}
	}()
	for range s.connections {
		l, err := openLink(ctx, networks, t.endpoint, request, s.outstanding)
		if err != nil {
			return result{}, err
		}
		links = append(links, l)
	}
	// Ends what is in progress when one fails or we are interrupted.
	defer context.AfterFunc(ctx, func() {
		for _, l := range links {
			_ = l.Close()
		}
	})()

	begin := time.Now().Add(s.warmup)
	end := begin.Add(s.duration)
	defer time.AfterFunc(time.Until(end)+patience, func() {
		cancel(fmt.Errorf("no answer for %s", patience))
	}).Stop()
	histograms := make([]*hdrhistogram.Histogram, len(links))
	var loops sync.WaitGroup
	for i, l := range links {
		histograms[i] = hdrhistogram.New(int64(time.Microsecond), int64(time.Minute), 3)
		loops.Go(func() {
			if err := loop(l, s.outstanding, begin, end, histograms[i]); err != nil {
				cancel(err)
			}
		})
	}
	before, errBefore := cpuAt(ctx, t.pid, begin)
	after, errAfter := cpuAt(ctx, t.pid, end)
	loops.Wait()
	if ctx.Err() != nil {
		return result{}, context.Cause(ctx)
	}
	if err := errors.Join(errBefore, errAfter); err != nil {
		return result{}, err
	}
	all := histograms[0]
	for _, h := range histograms[1:] {
		all.Merge(h)
	}
	n := all.TotalCount()
	if n == 0 {
		return result{}, errors.New("no answer within the measurement")
	}
	return result{
		rate:    float64(n) / s.duration.Seconds(),
		p50:     time.Duration(all.ValueAtQuantile(50)),
		p99:     time.Duration(all.ValueAtQuantile(99)),
		cpu:     (after - before) / time.Duration(n),
		answers: n,
	}, nil
}

// loop keeps requests outstanding until end, and records the answers that come
// after begin. Answers come in the order of the requests.
func loop(l link, outstanding int, begin, end time.Time, h *hdrhistogram.Histogram) error {
	sent := make([]time.Time, outstanding) // a ring
	first := 0
	now := time.Now()
	for i := range sent {
		sent[i] = now
	}
	if err := l.send(outstanding); err != nil {
		return err
	}
	for {
		n, err := l.receive()
		if err != nil {
			return err
		}
		now = time.Now()
		if now.After(end) {
			return nil
		}
		for range n {
			if now.After(begin) {
				_ = h.RecordValue(int64(now.Sub(sent[first]))) // over a minute: an error ends such runs anyway
			}
			sent[first] = now
			first = (first + 1) % outstanding
		}
		if err := l.send(n); err != nil {
			return err
		}
	}
}

func openLink(ctx context.Context, networks *transport.Networks, e transport.Endpoint, request []byte, outstanding int) (link, error) {
	if e.Network == transport.TCP {
		addrs, err := e.Resolve(ctx, networks.Resolver)
		if err != nil {
			return nil, err
		}
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addrs[0].String())
		if err != nil {
			return nil, err
		}
		return &stream{Conn: c, requests: bytes.Repeat(request, outstanding), buf: make([]byte, 2*transport.MaxMessage)}, nil
	}
	c, err := networks.Dial(ctx, nil, e, transport.Options{DefaultPPID: transport.PPIDASAP})
	if err != nil {
		return nil, err
	}
	a := &association{Conn: c, buf: make([]byte, transport.MaxMessage)}
	for range outstanding {
		a.requests = append(a.requests, transport.Message{Data: request})
	}
	return a, nil
}

// stream is a link over bare TCP, the same for registrars and for the echo. It
// looks at no more of an answer than type and length.
type stream struct {
	net.Conn
	requests   []byte
	buf        []byte
	start, end int
}

func (s *stream) send(n int) error {
	if n == 0 {
		return nil
	}
	size := (int(binary.BigEndian.Uint16(s.requests[2:])) + 3) &^ 3
	_, err := s.Write(s.requests[:n*size])
	return err
}

func (s *stream) receive() (int, error) {
	n, err := s.Read(s.buf[s.end:])
	if err != nil {
		return 0, err
	}
	s.end += n
	answers := 0
	for s.end-s.start >= 4 {
		size := (int(binary.BigEndian.Uint16(s.buf[s.start+2:])) + 3) &^ 3
		if s.end-s.start < size {
			break
		}
		if err := checkAnswer(s.buf[s.start:]); err != nil {
			return 0, err
		}
		s.start += size
		answers++
	}
	s.end = copy(s.buf, s.buf[s.start:s.end])
	s.start = 0
	return answers, nil
}

// association is a link over SCTP.
type association struct {
	transport.Conn
	requests []transport.Message
	buf      []byte
}

func (a *association) send(n int) error {
	return a.Send(context.Background(), a.requests[:n]...)
}

func (a *association) receive() (int, error) {
	m, err := a.Receive(context.Background(), a.buf)
	if err != nil {
		return 0, err
	}
	if len(m.Data) < 4 {
		return 0, fmt.Errorf("answer of %d octets", len(m.Data))
	}
	return 1, checkAnswer(m.Data)
}

func checkAnswer(b []byte) error {
	if t := asap.MessageType(b[0]); t != asap.TypeHandleResolutionResponse {
		return fmt.Errorf("the answer is a %s", t)
	}
	return nil
}

// ticks is the unit of times in /proc, the same on all Linux machines for
// programs.
const ticks = 100

// cpuAt waits for the time at and returns how much CPU time the process has used
// by then.
func cpuAt(ctx context.Context, pid int, at time.Time) (time.Duration, error) {
	select {
	case <-time.After(time.Until(at)):
	case <-ctx.Done():
		return 0, nil // told by the caller
	}
	if pid == 0 {
		return 0, nil
	}
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
