package poolelement

import (
	"errors"
	"fmt"
	"time"

	"rserpool/asap/param"
)

// EventType tells the kinds of Event apart.
type EventType int

// Kinds of events.
const (
	HomeFound              EventType = iota + 1 // the hunt found a registrar
	HomeChanged                                 // a registrar took the element over (H=1)
	HomeLost                                    // the association to the home is lost, or it does not answer
	RegistrationAccepted                        // the element is in the pool; Err is a warning, if any
	RegistrationRefreshed                       // re-registered; Err is a warning, if any
	RegistrationRejected                        // a re-registration was refused, the old one stands
	RegistrationFailed                          // refused, or too many attempts without answer
	RegistrationLost                            // it expired, by the registrar's word or by the clock
	Deregistered                                // the element has left the pool
	DeregistrationRejected                      // the registrar refuses to let it go
)

var eventNames = [...]string{
	HomeFound: "home registrar found", HomeChanged: "home registrar changed", HomeLost: "home registrar lost",
	RegistrationAccepted: "registered", RegistrationRefreshed: "re-registered",
	RegistrationRejected: "re-registration rejected", RegistrationFailed: "registration failed",
	RegistrationLost: "registration lost", Deregistered: "deregistered",
	DeregistrationRejected: "deregistration rejected",
}

func (t EventType) String() string {
	if t <= 0 || int(t) >= len(eventNames) {
		return fmt.Sprintf("EventType(%d)", int(t))
	}
	return eventNames[t]
}

// Event tells what happened to an element.
type Event struct {
	Type   EventType
	State  State // after the event
	Handle param.PoolHandle
	ID     param.PEID
	// Registrar is the home registrar's address as "network://host:port",
	// empty without a home.
	Registrar string
	// Retry is when the element tries again, for RegistrationFailed and
	// RegistrationLost; zero when it does not by itself.
	Retry time.Time
	// Err says why; see the kinds. RejectedError, WarningError,
	// hunt.ErrTimeout, hunt.ErrNoRegistrar, ErrExpired and ErrNoAddress can be
	// told apart with errors.Is and As.
	Err error
}

// Errors of Event.Err, Stop and Run. They come wrapped; test with errors.Is.
var (
	// ErrExpired: the registration life is over.
	ErrExpired = errors.New("registration expired")
	// ErrNoAddress: no address of the service may be registered over the
	// association to this registrar.
	ErrNoAddress = errors.New("no address to register")
	// ErrStopTimeout: the deregistration was not answered within
	// Config.StopTimeout.
	ErrStopTimeout = errors.New("deregistration not confirmed in time")
)

// RejectedError is a registrar's refusal of a request.
type RejectedError struct{ Causes param.OperationError }

func (e *RejectedError) Error() string { return "refused by the registrar: " + causes(e.Causes) }

// WarningError comes with a registration that was accepted with changed values
// (RFC 5352, section 2.2.3).
type WarningError struct{ Causes param.OperationError }

func (e *WarningError) Error() string { return "accepted with changes: " + causes(e.Causes) }

func causes(op param.OperationError) string {
	if len(op) == 0 {
		return "no cause given"
	}
	return op.String()
}
