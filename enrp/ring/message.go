package ring

// Message is one message between members. Implementations are the pointer types
// of this package; Encode and Decode are their wire form.
type Message interface {
	// Head returns sender and receiver.
	Head() *Header
}

// Header begins every message.
type Header struct {
	From Node
	To   Member // a message for another incarnation is dropped
}

// Head returns the header itself.
func (h *Header) Head() *Header { return h }
