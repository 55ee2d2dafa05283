package pooltest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"rserpool/poolelement"
	"rserpool/pooluser"
)

// A service of octets: a request of 12 octets asks for some, from an offset on, of a
// sequence that all elements know.
const (
	requestSize = 12
	blockSize   = 50
)

// octet is number i of the sequence.
func octet(i uint64) byte { return byte((i * 0x9e3779b97f4a7c15) >> 56) }

func octetsRequest(offset, length uint64) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, offset), uint32(length))
}

func serveOctets(conn io.ReadWriter) error {
	for {
		var request [requestSize]byte
		if _, err := io.ReadFull(conn, request[:]); err != nil {
			return err
		}
		offset := binary.BigEndian.Uint64(request[:])
		answer := make([]byte, binary.BigEndian.Uint32(request[8:]))
		for i := range answer {
			answer[i] = octet(offset + uint64(i))
		}
		if _, err := conn.Write(answer); err != nil {
			return err
		}
	}
}

// reader reads octets of the sequence in their order.
type reader struct {
	next uint64
	nap  func()
}

func (r *reader) read(s io.Reader, most int) error {
	r.nap()
	p := make([]byte, most)
	n, err := s.Read(p)
	for i, b := range p[:n] {
		if want := octet(r.next); b != want {
			return fmt.Errorf("octet %d is %#x, want %#x (number %d of %d read)", r.next, b, want, i, n)
		}
		r.next++
	}
	return err
}

// askOctets reads the sequence until stop is closed: blocks in request and answer, and
// after a failover from where it was.
func askOctets(s *pooluser.Stream, r *reader, stop <-chan struct{}) (failovers int, _ error) {
	for {
		select {
		case <-stop:
			return failovers, nil
		case <-time.After(20 * time.Millisecond):
		}
		end := r.next + blockSize
		_, err := s.Write(octetsRequest(r.next, blockSize))
		for err == nil && r.next < end {
			err = r.read(s, int(end-r.next))
		}
		if failover := (*pooluser.FailoverError)(nil); errors.As(err, &failover) {
			failovers++
			s.Continue()
		} else if err != nil {
			return failovers, err
		}
	}
}

// resumer brings new elements to where the stream is: one that writes requests for one
// block after the other, and reads the answers as it likes.
type resumer struct {
	mu                sync.Mutex
	written, received uint64 // before the present connection
	failovers         int
}

func (r *resumer) resume(_ context.Context, f *pooluser.Failover) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	written, received := r.written+f.Written, r.received+f.Received
	asked := written / requestSize * blockSize
	again := octetsRequest(asked, blockSize)[:written%requestSize]
	if asked > received {
		again = append(octetsRequest(received, asked-received), again...)
	}
	if _, err := f.Write(again); err != nil {
		return err // the next element gets the same
	}
	r.written, r.received = written, received
	r.failovers++
	return nil
}

// streamOctets reads the sequence until stop is closed and all that was asked for has
// come.
func streamOctets(s *pooluser.Stream, r *reader, stop <-chan struct{}) error {
	asked := make(chan uint64, 1)
	writes := make(chan error, 1)
	go func() {
		var end uint64
		for {
			select {
			case <-stop:
				asked <- end
				writes <- nil
				return
			case <-time.After(20 * time.Millisecond):
			}
			if _, err := s.Write(octetsRequest(end, blockSize)); err != nil {
				asked <- 0
				writes <- err
				return
			}
			end += blockSize
		}
	}()
	for end := ^uint64(0); r.next < end; {
		if err := s.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		err := r.read(s, 80)
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			select {
			case end = <-asked:
			default:
			}
		} else if err != nil {
			return err
		}
	}
	return <-writes
}

func TestStreams(t *testing.T) {
	for _, kind := range []struct {
		name           string
		control, sctp  bool
		resume, napper bool
	}{
		{name: "framed", control: true}, {name: "framed resume", control: true, resume: true},
		{name: "framed resume slow", control: true, resume: true, napper: true},
		{name: "SCTP", control: true, sctp: true}, {name: "SCTP resume", control: true, sctp: true, resume: true, napper: true},
		{name: "plain"}, {name: "plain resume", resume: true}, {name: "plain resume slow", resume: true, napper: true},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			trials, done, failovers := 10, 0, 0
			if raceEnabled {
				trials = 3
			}
			Seeds(t, trials, func(t *testing.T, w *World) {
				n := streamTrial(t, w, kind.control, kind.resume, kind.napper)
				done++
				failovers += n
			}, func(cfg *Config) { cfg.SCTP = kind.sctp })
			t.Logf("%d failovers in %d trials", failovers, done)
			if done >= 10 && failovers < 2*done {
				t.Error("too few to show anything")
			}
		})
	}
}

// streamTrial reads the sequence under a schedule of faults, and returns how often the
// stream failed over.
func streamTrial(t *testing.T, w *World, control, resume, napper bool) (failovers int) {
	if w.Rand().IntN(2) == 0 {
		w.Network().Buffer = 64
	}
	w.Registrar("r1")
	for _, name := range trialElements {
		if control {
			w.StreamElement(name, trialPool, poolelement.StreamHandlerFunc(func(_ context.Context, s *poolelement.StreamSession) error { return serveOctets(s) }))
		} else {
			w.Server(name, trialPool, func(_ context.Context, conn net.Conn) { _ = serveOctets(conn) })
		}
	}
	user := w.User("u1")
	w.Settle()

	timers := pooluser.Fast
	timers.Total, timers.Tries = time.Minute, 10000 // there is an end to all trouble
	cfg := pooluser.StreamConfig{Timers: timers, Control: control, FailoverOnEOF: true, SCTPHeartbeats: true}
	if !control {
		cfg.Answer = 300 * time.Millisecond
	}
	var resumer resumer
	if resume {
		cfg.Resume = resumer.resume
	}
	s, err := user.OpenStream(t.Context(), trialPool, cfg)
	if err != nil {
		t.Fatal(err)
	}
	naps := w.random("naps")
	r := &reader{nap: func() { nap(naps, napper) }}
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		var err error
		if resume {
			err = streamOctets(s, r, stop)
		} else {
			failovers, err = askOctets(s, r, stop)
		}
		ended <- err
	}()
	w.Play(Troubles{
		Faults: []Fault{Killed, Crashed, Hung, Isolated, Parted},
		Names:  trialElements, Others: []string{"u1"}, Number: 10,
		Within: trialTime, Shortest: 50 * time.Millisecond, Longest: 2 * time.Second,
	}.Draw(w.Rand()))
	w.Pass(5 * time.Second)
	close(stop)
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Errorf("stuck at octet %d", r.next)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	resumer.mu.Lock()
	defer resumer.mu.Unlock()
	return failovers + resumer.failovers
}

func nap(r *rand.Rand, often bool) {
	if often && r.IntN(20) == 0 {
		time.Sleep(200 * time.Millisecond)
	}
}
