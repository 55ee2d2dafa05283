// Package table reads the handle table of any registrar by ENRP, as a guest: it
// introduces itself, as registrars answer only those they know, asks for the list
// of registrars and for the handle table (RFC 5353, sections 3.2.2.2 and 3.2.3),
// and is done. It answers nothing, so that it has no say in a takeover.
//
// Reader is deterministic and does no input or output: messages and times go in,
// messages to be sent come out.
package table

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"rserpool/asap/param"
	"rserpool/enrp"
)

// Errors of Result; test with errors.Is.
var (
	// ErrSilent: the registrar did not answer in time.
	ErrSilent = errors.New("no answer")
	// ErrRejected: the registrar keeps refusing, as one does that is starting.
	ErrRejected = errors.New("refused by the registrar")
	// ErrTooLarge: the table is larger than Config.MaxElements.
	ErrTooLarge = errors.New("handle table too large")
	// ErrUnfinished: the table is not complete yet.
	ErrUnfinished = errors.New("not finished")
)

// ErrorReport is an ENRP_ERROR from the registrar.
type ErrorReport struct{ Causes param.OperationError }

func (e *ErrorReport) Error() string {
	if len(e.Causes) == 0 {
		return "the registrar reports an error without a cause"
	}
	return "the registrar reports " + e.Causes.String()
}

// Config describes a Reader. Server is required.
type Config struct {
	// Server is how the reader introduces itself: a non-zero identifier of its
	// own and the addresses and port that the registrar sees it at.
	Server param.ServerInformation
	// OwnOnly asks for the elements only that the registrar is home of (the W
	// bit).
	OwnOnly bool
	// NoResponse is MAX-TIME-NO-RESPONSE. Default 5 s.
	NoResponse time.Duration
	// Pause is how long to wait after a rejection before all begins again.
	// Default 2 s.
	Pause time.Duration
	// Attempts is how often to begin. Default 3.
	Attempts int
	// MaxElements bounds the elements taken, repeated ones included; a message
	// without any counts as one. Default 4,000,000.
	MaxElements int
}

func (c Config) withDefaults() Config {
	c.NoResponse = cmp.Or(c.NoResponse, 5*time.Second)
	c.Pause = cmp.Or(c.Pause, 2*time.Second)
	c.Attempts = cmp.Or(c.Attempts, 3)
	c.MaxElements = cmp.Or(c.MaxElements, 4_000_000)
	return c
}

// Validate names all problems of the configuration.
func (c Config) Validate() error {
	var errs []error
	if c.Server.ID == 0 {
		errs = append(errs, errors.New("Server: no identifier"))
	}
	if c.Server.Transport.IsZero() {
		errs = append(errs, errors.New("Server: no transport"))
	}
	if c.NoResponse < 0 || c.Pause < 0 || c.Attempts < 0 || c.MaxElements < 0 {
		errs = append(errs, errors.New("times and limits must not be negative"))
	}
	return errors.Join(errs...)
}

// Table is what a registrar knows.
type Table struct {
	// Registrar is the one that was read.
	Registrar param.RegistrarID
	// Registrars are all it knows, by identifier: itself, if it described
	// itself, and its peers, but not the reader.
	Registrars []param.ServerInformation
	// Pools are the pools by handle, elements by identifier.
	Pools []enrp.Pool
}

type phase int

const (
	listing phase = iota + 1 // waiting for the LIST_RESPONSE
	loading                  // waiting for a HANDLE_TABLE_RESPONSE
	pausing                  // waiting to begin again
	done
)

// Reader reads one table over one association. It is not safe for concurrent
// use. After each call the caller sends what Ready returns, in order, and calls
// Tick at Deadline, until Done.
type Reader struct {
	cfg      Config
	phase    phase
	out      []enrp.Message
	deadline time.Time
	attempts int
	err      error
	broken   error // why the latest message could not be read

	registrar param.RegistrarID
	servers   map[param.RegistrarID]param.ServerInformation
	pools     map[param.PoolHandle]map[param.PEID]param.PoolElement
	taken     int
}

// New returns a reader whose association is up now. Server.ID must not be zero.
func New(cfg Config, now time.Time) (*Reader, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("table reader: %w", err)
	}
	r := &Reader{cfg: cfg.withDefaults(), servers: map[param.RegistrarID]param.ServerInformation{}}
	r.begin(now)
	return r, nil
}

// Ready returns the messages to send and forgets them.
func (r *Reader) Ready() []enrp.Message {
	out := r.out
	r.out = nil
	return out
}

// Deadline says when to call Tick; it means nothing once Done.
func (r *Reader) Deadline() time.Time { return r.deadline }

// Done reports whether the result is there.
func (r *Reader) Done() bool { return r.phase == done }

// Result returns the table, or why there is none: an error that wraps one of
// this package's, or an *ErrorReport.
func (r *Reader) Result() (Table, error) {
	if r.err != nil {
		return Table{}, r.err
	}
	if r.phase != done {
		return Table{}, ErrUnfinished
	}
	t := Table{Registrar: r.registrar, Registrars: sorted(r.servers)}
	for _, h := range slices.Sorted(maps.Keys(r.pools)) {
		t.Pools = append(t.Pools, enrp.Pool{Handle: h, Elements: sorted(r.pools[h])})
	}
	return t, nil
}

func sorted[K cmp.Ordered, V any](m map[K]V) []V {
	out := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}

// Tick says that it is now; past Deadline it gives up or begins again.
func (r *Reader) Tick(now time.Time) {
	if r.phase == done || now.Before(r.deadline) {
		return
	}
	switch r.phase {
	case pausing:
		r.begin(now)
	case listing:
		r.silent("to the list request")
	case loading:
		r.silent("to the handle table request")
	}
}

func (r *Reader) silent(to string) {
	err := fmt.Errorf("%w %s within %v", ErrSilent, to, r.cfg.NoResponse)
	if r.broken != nil {
		err = fmt.Errorf("%w (its latest message can't be read: %w)", err, r.broken)
	}
	r.fail(err)
}

// Broken says that a message came that can't be decoded. It is dropped, but if
// it was the answer the error says so.
func (r *Reader) Broken(err error) { r.broken = err }

// Step takes a message that came. Requests are not answered; what comes for
// others or from others than the first sender is dropped.
func (r *Reader) Step(m enrp.Message, now time.Time) {
	ids := m.IDs()
	switch {
	case r.phase == done,
		ids.Sender == 0 || ids.Sender == r.cfg.Server.ID,
		ids.Receiver != 0 && ids.Receiver != r.cfg.Server.ID,
		r.registrar != 0 && ids.Sender != r.registrar:
		return
	}
	r.registrar = ids.Sender
	switch m := m.(type) {
	case *enrp.Presence:
		if m.Server.ID == ids.Sender {
			r.learn(m.Server)
		}
	case *enrp.Error:
		r.fail(&ErrorReport{m.Causes})
	case *enrp.ListResponse:
		if r.phase != listing {
			return
		}
		if m.Reject {
			r.rejected("the list request", now)
			return
		}
		for _, s := range m.Peers {
			r.learn(s)
		}
		r.phase = loading
		r.request(now)
	case *enrp.HandleTableResponse:
		if r.phase != loading {
			return
		}
		if m.Reject {
			r.rejected("the handle table request", now)
			return
		}
		r.take(m, now)
	}
}

// begin starts from the beginning.
func (r *Reader) begin(now time.Time) {
	r.phase = listing
	r.attempts++
	r.pools = map[param.PoolHandle]map[param.PEID]param.PoolElement{}
	r.introduce(true)
	r.out = append(r.out, &enrp.ListRequest{Servers: r.ids()})
	r.deadline = now.Add(r.cfg.NoResponse)
}

// introduce makes the registrar know the reader, which is home to no element.
func (r *Reader) introduce(reply bool) {
	r.out = append(r.out, &enrp.Presence{
		Servers: r.ids(), ReplyRequired: reply, Checksum: param.Checksum{}.Sum(), Server: r.cfg.Server,
	})
}

// request asks for the next part. Each request comes with a presence: a registrar
// with short timers forgets a silent peer in the middle of a long table, and then
// refuses.
func (r *Reader) request(now time.Time) {
	r.introduce(false)
	r.out = append(r.out, &enrp.HandleTableRequest{Servers: r.ids(), OwnOnly: r.cfg.OwnOnly})
	r.deadline = now.Add(r.cfg.NoResponse)
}

func (r *Reader) ids() enrp.Servers {
	return enrp.Servers{Sender: r.cfg.Server.ID, Receiver: r.registrar}
}

func (r *Reader) learn(s param.ServerInformation) {
	if s.ID != 0 && s.ID != r.cfg.Server.ID && !s.Transport.IsZero() {
		r.servers[s.ID] = s
	}
}

// take installs one part. A pool may be spread over several messages and entries,
// and an element may come again when the table changes meanwhile: the latest
// counts.
func (r *Reader) take(m *enrp.HandleTableResponse, now time.Time) {
	r.taken++
	for _, pool := range m.Pools {
		elements := r.pools[pool.Handle]
		if elements == nil {
			elements = make(map[param.PEID]param.PoolElement, len(pool.Elements))
			r.pools[pool.Handle] = elements
		}
		for _, e := range pool.Elements {
			elements[e.ID] = e
		}
		r.taken += len(pool.Elements)
	}
	switch {
	case r.taken > r.cfg.MaxElements:
		r.fail(fmt.Errorf("%w: more than %d elements", ErrTooLarge, r.cfg.MaxElements))
	case m.More:
		r.request(now)
	default:
		r.phase = done
	}
}

func (r *Reader) rejected(what string, now time.Time) {
	if r.attempts >= r.cfg.Attempts {
		r.fail(fmt.Errorf("%w: %s, %d times", ErrRejected, what, r.attempts))
		return
	}
	r.phase = pausing
	r.deadline = now.Add(r.cfg.Pause)
}

func (r *Reader) fail(err error) {
	r.phase, r.err, r.out = done, err, nil
}
