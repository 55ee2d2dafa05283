package pooluser

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/framed"
)

// Timers say when a session gives an element up and how it looks for another.
//
// While the element that failed is the only one that does not answer, requests get
// answers again after
//
//	Silence + set-up of one connection + the application's own resumption
//
// at the latest, and after max(Connect, Pace) more for each further element that is
// tried in vain. A process that was killed closes its connections, and there Silence
// falls away. docs/sessions.md has the whole account.
type Timers struct {
	// Connect bounds one attempt to connect, the exchange of preambles included.
	Connect time.Duration
	// Heartbeat is how long an element may be silent before it is asked for a
	// sign of life, and the interval of further ones. Elements without
	// heartbeats (plain TCP, SCTP unless SCTPHeartbeats) are not asked.
	Heartbeat time.Duration
	// Silence is how long an element that answers heartbeats may give no sign of
	// life, before it is given up. At least twice Heartbeat.
	Silence time.Duration
	// Pace is the shortest time from the start of one attempt to the start of
	// the next. Shorter finds a live element sooner among many dead ones, longer
	// spares a pool that is in trouble.
	Pace time.Duration
	// Tries bounds the elements that one failover tries, and those that fail one
	// by one before they answer the same request.
	Tries int
	// Total bounds one failover, the application's hook included.
	Total time.Duration
}

// Presets of Timers.
var (
	// Fast is for one site and users that wait: a failover is over in well below
	// 300 ms, also when the element hangs or its network is cut silently. An
	// element that is not scheduled for a tenth of a second is given up.
	Fast = Timers{
		Connect: 60 * time.Millisecond, Heartbeat: 30 * time.Millisecond, Silence: 120 * time.Millisecond,
		Pace: 20 * time.Millisecond, Tries: 16, Total: 3 * time.Second,
	}
	// Default is for sites with ordinary networks between them.
	Default = Timers{
		Connect: time.Second, Heartbeat: 500 * time.Millisecond, Silence: 2 * time.Second,
		Pace: 100 * time.Millisecond, Tries: 16, Total: 30 * time.Second,
	}
	// Patient is for bad networks, and for sessions that are expensive to move.
	Patient = Timers{
		Connect: 10 * time.Second, Heartbeat: 5 * time.Second, Silence: 20 * time.Second,
		Pace: time.Second, Tries: 32, Total: 5 * time.Minute,
	}
)

func (t Timers) withDefaults() Timers {
	for _, f := range []struct {
		field *time.Duration
		def   time.Duration
	}{
		{&t.Connect, Default.Connect}, {&t.Heartbeat, Default.Heartbeat}, {&t.Silence, Default.Silence},
		{&t.Pace, Default.Pace}, {&t.Total, Default.Total},
	} {
		if *f.field == 0 {
			*f.field = f.def
		}
	}
	if t.Tries == 0 {
		t.Tries = Default.Tries
	}
	return t
}

func (t Timers) errs() []error {
	var errs []error
	t = t.withDefaults()
	for _, f := range []struct {
		name string
		v    time.Duration
	}{
		{"Connect", t.Connect}, {"Heartbeat", t.Heartbeat}, {"Silence", t.Silence}, {"Pace", t.Pace}, {"Total", t.Total},
	} {
		if f.v < 0 {
			errs = append(errs, fmt.Errorf("Timers.%s is %v, must not be negative", f.name, f.v))
		}
	}
	if t.Silence < 2*t.Heartbeat {
		errs = append(errs, fmt.Errorf("Timers.Silence is %v, must be at least twice Heartbeat (%v)", t.Silence, t.Heartbeat))
	}
	if t.Tries < 0 {
		errs = append(errs, fmt.Errorf("Timers.Tries is %d, must not be negative", t.Tries))
	}
	return errs
}

// Delivery says what becomes of messages that may not have been answered when an
// element fails.
type Delivery int

const (
	// AtMostOnce: a message is never sent again once any octet of it has left.
	AtMostOnce Delivery = iota
	// AtLeastOnce: messages are kept until they are answered, and sent again to
	// the next element. Its answers may then come twice.
	AtLeastOnce
)

// SessionConfig describes a Session. The zero value is usable; a zero field means its
// default.
type SessionConfig struct {
	// Timers are Fast, Default, Patient or others. A zero field is that of
	// Default.
	Timers Timers
	// Delivery: AtMostOnce is the default.
	Delivery Delivery
	// Answer, if set, gives an element up when a request has been waiting for so
	// long and no message has come either. It is the only way to find a hung
	// process behind SCTP without heartbeats, as with rsplib's elements; and it
	// finds one whose loop lives but does not answer. Every message is a request
	// then, unless it is OneWay. Default: none.
	Answer time.Duration
	// Answers returns the number (Message.Request) of the request that a message
	// from the element answers, 0 for none; it must not call the session.
	// Default nil: messages answer the requests one by one in their order.
	Answers func(Message) (request uint64)
	// Keep bounds the requests without an answer that are kept, KeepOctets their
	// octets; Send waits when they are reached. With AtLeastOnce they are sent
	// again; in any case the hook gets them (Failover.Unanswered). Default 256
	// and 1 MiB with AtLeastOnce, else none are kept.
	Keep, KeepOctets int
	// Inbox bounds the messages that wait for Receive; the element waits when it
	// is reached. Default 64.
	Inbox int

	// OnFailover, if set, is called when another element is connected and has
	// got the cookie, before any octet of the application goes to it: to
	// authenticate, to set the stage, to send again. An error makes the session
	// try the next element, one that wraps ErrGiveUp ends it. The context ends
	// when the element is given up or the session ends. One hook runs at a time:
	// while it runs on after that, the next element waits. It has to talk by
	// f: the session has no element until it returns. Send and Receive of the
	// session, with the hook's context, return ErrInHook; with another they
	// wait, and Close waits for the hook.
	OnFailover func(ctx context.Context, f *Failover) error
	// Notifications makes Receive return notifications as well.
	Notifications bool

	// Cookie is handed to the first element, as from an earlier session.
	Cookie []byte
	// Key is for policies that have use for one; see WithKey.
	Key string
	// PPID is that of messages sent with PPID 0; not ASAP's (11).
	PPID uint32
	// MaxMessage is the longest message to receive, in octets. Default 65536,
	// the maximum over SCTP.
	MaxMessage int
	// SCTPHeartbeats sends heartbeats to SCTP elements: they must be this
	// project's. TCP elements always get them. Default off.
	SCTPHeartbeats bool
}

func (cfg SessionConfig) withDefaults() SessionConfig {
	cfg.Timers = cfg.Timers.withDefaults()
	if cfg.Delivery == AtLeastOnce && cfg.Keep == 0 {
		cfg.Keep = 256
	}
	if cfg.KeepOctets == 0 {
		cfg.KeepOctets = 1 << 20
	}
	if cfg.Inbox == 0 {
		cfg.Inbox = 64
	}
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = transport.MaxMessage
	}
	cfg.Cookie = slices.Clone(cfg.Cookie)
	return cfg
}

// Validate names everything that is wrong with the configuration.
func (cfg SessionConfig) Validate() error {
	errs := append(cfg.Timers.errs(), ppidErrs(cfg.PPID)...)
	for _, f := range []struct {
		name string
		v    int
	}{
		{"Keep", cfg.Keep}, {"KeepOctets", cfg.KeepOctets}, {"Inbox", cfg.Inbox}, {"MaxMessage", cfg.MaxMessage},
	} {
		if f.v < 0 {
			errs = append(errs, fmt.Errorf("%s is %d, must not be negative", f.name, f.v))
		}
	}
	if cfg.Answer < 0 {
		errs = append(errs, fmt.Errorf("Answer is %v, must not be negative", cfg.Answer))
	}
	if _, err := (&asap.CookieEcho{Cookie: cfg.Cookie}).Append(nil); err != nil {
		errs = append(errs, fmt.Errorf("Cookie of %d octets: %w", len(cfg.Cookie), err))
	}
	if cfg.Delivery != AtMostOnce && cfg.Delivery != AtLeastOnce {
		errs = append(errs, fmt.Errorf("Delivery is %d, which is none", cfg.Delivery))
	}
	return errors.Join(errs...)
}

func ppidErrs(ppid uint32) []error {
	switch ppid {
	case transport.PPIDASAP:
		return []error{fmt.Errorf("PPID is %d, which belongs to ASAP (RFC 5352, section 5)", ppid)}
	case framed.PPIDHeartbeat:
		return []error{fmt.Errorf("PPID is 0x%x, which belongs to the session framing", ppid)}
	}
	return nil
}

// Message is a message of the application's.
type Message struct {
	Data []byte
	// PPID is the payload protocol identifier; 0 stands for SessionConfig.PPID.
	PPID uint32
	// Stream is the SCTP stream.
	Stream uint16
	// Request is the application's number of a request that it sends, for
	// SessionConfig.Answers.
	Request uint64
	// OneWay tells that a message sent is not answered: it is not kept.
	OneWay bool
	// Element is the element that a received message came from.
	Element param.PEID
	// Notification is set in place of all the above on what Receive returns, if
	// SessionConfig.Notifications asks for them.
	Notification *Notification

	conn uint64 // that it came by
}

// NotificationKind tells notifications apart.
type NotificationKind int

// Kinds of notifications.
const (
	FailoverBegun        NotificationKind = iota + 1 // Element is given up, Err says why
	FailedOver                                       // Element is the new one, Tried are those that did not answer
	CookieReceived                                   // Cookie is kept for the next element
	BusinessCardReceived                             // Card is the order in which to fail over
	ShutDown                                         // Element has ended the session in an orderly way
	ErrorReceived                                    // Element sent an ASAP ERROR, Err has it
)

// String names the kind.
func (k NotificationKind) String() string {
	switch k {
	case FailoverBegun:
		return "failover begun"
	case FailedOver:
		return "failed over"
	case CookieReceived:
		return "cookie received"
	case BusinessCardReceived:
		return "business card received"
	case ShutDown:
		return "shut down"
	case ErrorReceived:
		return "error received"
	}
	return fmt.Sprintf("notification %d", int(k))
}

// Notification tells what became of a session. It lies between the messages in the
// order in which things happened.
type Notification struct {
	Kind    NotificationKind
	Element param.PoolElement
	Err     error
	Tried   []Attempt
	Cookie  []byte
	Card    []param.PoolElement
}

// Errors of sessions. They come wrapped.
var (
	// ErrSilent: the element gave no sign of life for Timers.Silence.
	ErrSilent = errors.New("no sign of life")
	// ErrNoAnswer: no answer came for SessionConfig.Answer.
	ErrNoAnswer = errors.New("requests are not answered")
	// ErrNoConnection: no connection came about within Timers.Connect.
	ErrNoConnection = errors.New("does not answer")
	// ErrFailoverTime: a failover took longer than Timers.Total.
	ErrFailoverTime = errors.New("no element found in time")
	// ErrHookRuns: no other element can be greeted because the hook has not
	// returned, though its context has ended.
	ErrHookRuns = errors.New("the failover hook of an element before runs on")
	// ErrInHook: a hook uses the session, which waits for the hook, in place of
	// the Failover that it was given.
	ErrInHook = errors.New("the failover hook can't use the session")
	// ErrUncertain: a message may have reached the element that failed. With
	// AtMostOnce it is not sent again.
	ErrUncertain = errors.New("message may have arrived or not")
	// ErrCookieRefused: an element refused the session's cookie. The others
	// would, too.
	ErrCookieRefused = errors.New("cookie refused")
	// ErrMovedOn: the element asked to be left, for want of resources or because
	// it ends.
	ErrMovedOn = errors.New("element asks to go elsewhere")
	// ErrGiveUp, wrapped in the error of a hook, ends the session.
	ErrGiveUp = errors.New("application gives up")
	// ErrNoControl: there is no ASAP control channel to the element.
	ErrNoControl = errors.New("no control channel")
)

// PeerError is an ASAP ERROR from an element.
type PeerError struct{ Causes param.OperationError }

// Error names the causes.
func (e *PeerError) Error() string { return fmt.Sprintf("element reports: %v", e.Causes) }
