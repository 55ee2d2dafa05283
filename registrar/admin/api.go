package admin

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"rserpool/asap/param"
)

// DefaultAddress is where the API listens unless configured otherwise: loopback
// only, on the port behind ASAP's two.
const DefaultAddress = "127.0.0.1:3865"

// Paths of the API. A pool's own paths are made by PoolPath and ElementPath.
const (
	PathStatus     = "/api/v1/status"
	PathPools      = "/api/v1/pools"
	PathRegistrars = "/api/v1/registrars"
	PathResolve    = "/api/v1/resolve" // ?pool=HANDLE[&items=N]
	PathEvents     = "/api/v1/events"  // server-sent events; ?pool=HANDLE to narrow
	PathRing       = "/api/v1/ring"    // 404 without one
	PathRingMerges = "/api/v1/ring/merges"
	PathMetrics    = "/metrics"
	PathHealthy    = "/-/healthy"
	PathReady      = "/-/ready"
	PathReload     = "/-/reload" // POST
)

// PoolPath is the path of one pool: GET shows it, POST registers an element
// under an identifier of the registrar's choice.
func PoolPath(h param.PoolHandle) string {
	// A segment of dots would be taken for a relative path.
	segment := strings.ReplaceAll(url.PathEscape(EscapeHandle(h)), ".", "%2E")
	return PathPools + "/" + segment
}

// ElementPath is the path of one element: GET shows it, PUT registers it, DELETE
// removes it, dead or alive.
func ElementPath(h param.PoolHandle, id param.PEID) string {
	return PoolPath(h) + "/elements/" + id.String()
}

// All times are RFC 3339 with fractions, durations are seconds as numbers,
// identifiers are hexadecimal as protocol analysers show them ("0x0a0b0c0d"),
// pool handles are escaped by EscapeHandle.

// Status is the answer of PathStatus.
type Status struct {
	Registrar  string     `json:"registrar"`
	Version    string     `json:"version"`
	Started    time.Time  `json:"started,omitzero"`
	Ready      bool       `json:"ready"`
	Compat     string     `json:"compat,omitempty"`
	Strict     bool       `json:"rfc_strict,omitempty"`
	Pools      int        `json:"pools"`
	Elements   int        `json:"elements"`
	Suspects   int        `json:"suspects"`
	Checksum   string     `json:"checksum"`
	Endpoints  []Endpoint `json:"endpoints"`
	Networks   []Network  `json:"networks"`
	Conns      int        `json:"connections"`
	Subscribed int        `json:"subscriptions"`
	// Digest is equal where all records of all elements are.
	Digest string       `json:"digest,omitempty"`
	Ring   *RingSummary `json:"ring,omitempty"`
}

// Endpoint is where the registrar listens.
type Endpoint struct {
	Protocol string   `json:"protocol"` // "asap" or "enrp"
	Network  string   `json:"network"`  // "sctp" or "tcp"
	Addrs    []string `json:"addresses"`
}

// Network says whether this machine has a network; Error is why not.
type Network struct {
	Name  string `json:"name"`
	Error string `json:"error,omitempty"`
}

// PoolList is the answer of PathPools. Next, when not empty, is the value for
// the query parameter after that continues the list; limit sets the page size.
type PoolList struct {
	Pools []Pool `json:"pools"`
	Next  string `json:"next,omitempty"`
}

// Pool is one pool; Members are present when one pool was asked for.
type Pool struct {
	Handle     string    `json:"handle"`
	Policy     string    `json:"policy"`      // name, or the number when it has none
	PolicyType string    `json:"policy_type"` // number, hexadecimal
	Transport  string    `json:"transport"`   // user transport: "tcp", "sctp", ...
	Control    bool      `json:"control"`     // user transport carries ASAP control too
	Elements   int       `json:"elements"`
	Suspects   int       `json:"suspects"`
	Members    []Element `json:"members,omitempty"`
}

// Element is one pool element.
type Element struct {
	Handle     string     `json:"handle"`
	ID         string     `json:"id"`
	Home       string     `json:"home"`
	State      string     `json:"state"` // StateActive or StateSuspect
	Cause      string     `json:"cause,omitempty"`
	User       Transport  `json:"user_transport"`
	ASAP       *Transport `json:"asap_transport,omitempty"`
	Policy     Policy     `json:"policy"`
	Life       float64    `json:"life"`                // seconds, -1 without end
	Registered time.Time  `json:"registered,omitzero"` // zero: not known
	Refreshed  time.Time  `json:"refreshed,omitzero"`
	Expires    *time.Time `json:"expires,omitempty"` // absent without end
	Reports    int        `json:"unreachable_reports"`
}

// States of an element.
const (
	StateActive  = "active"
	StateSuspect = "suspect"
)

// Transport is a transport of an element. Protocol is "sctp", "tcp", "udp",
// "udplite", "dccp" or "opaque".
type Transport struct {
	Protocol    string   `json:"protocol"`
	Port        uint16   `json:"port,omitempty"`
	Addresses   []string `json:"addresses,omitempty"`
	Control     bool     `json:"control,omitempty"`
	ServiceCode uint32   `json:"service_code,omitempty"`
	Opaque      string   `json:"opaque,omitempty"` // hexadecimal
}

// Policy is an element's policy with its values. Name is as in Pool.Policy;
// when a policy is given to the API, Name or Type suffices.
type Policy struct {
	Name        string `json:"name"`
	Type        string `json:"type"`
	Weight      uint32 `json:"weight,omitempty"`
	Priority    uint32 `json:"priority,omitempty"`
	Load        uint32 `json:"load,omitempty"`        // 0xffffffff = 100 %
	Degradation uint32 `json:"degradation,omitempty"` // load scale
	Penalty     uint32 `json:"penalty,omitempty"`     // load scale, per millisecond
	Distance    uint32 `json:"distance,omitempty"`    // milliseconds
	Data        string `json:"data,omitempty"`        // hexadecimal
}

// RegistrarList is the answer of PathRegistrars; the first is the one asked.
type RegistrarList struct {
	Registrars []RegistrarInfo `json:"registrars"`
}

// RegistrarInfo is one registrar.
type RegistrarInfo struct {
	ID        string     `json:"id"`
	Self      bool       `json:"self"`
	Role      string     `json:"role,omitempty"`
	Elements  int        `json:"elements"`           // it is home to
	Checksum  string     `json:"checksum,omitempty"` // of these
	Endpoints []Endpoint `json:"endpoints,omitempty"`
	LastHeard *time.Time `json:"last_heard,omitempty"` // by announcement, or as peer
}

// Roles of a registrar, towards the one asked. Those without one are known from
// announcements or as home of elements only.
const (
	RoleMember = "member" // of the same ring
	RolePeer   = "peer"   // by plain RFC 5353
)

// Resolution is the answer of PathResolve: what a pool user would get now, in
// this order. Asking moves the pool's selection on as a pool user does.
type Resolution struct {
	Handle   string    `json:"handle"`
	Policy   string    `json:"policy"`
	Elements []Element `json:"elements"`
}

// RegisterRequest is the body of a registration by an administrator. Such an
// element has no association: it is probed only when it has an ASAP transport.
type RegisterRequest struct {
	User   Transport  `json:"user_transport"`
	ASAP   *Transport `json:"asap_transport,omitempty"`
	Policy Policy     `json:"policy"`
	Life   float64    `json:"life"` // seconds, whole; -1 without end
}

// Event is one entry of PathEvents: the data of a server-sent event whose name
// is Type and whose id is Seq.
type Event struct {
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time"`
	Type    string    `json:"type"`
	Handle  string    `json:"handle,omitempty"`
	ID      string    `json:"id,omitempty"`
	Cause   string    `json:"cause,omitempty"`
	Element *Element  `json:"element,omitempty"`
	// View comes with EventView, Merge with EventMerged.
	View  *RingChange `json:"view,omitempty"`
	Merge *RingMerge  `json:"merge,omitempty"`
}

// Types of events.
const (
	// EventSnapshot says that what came before this event is not shown: at the
	// start of a stream, and when the reader was too slow. The state at that
	// moment is what PathPools shows.
	EventSnapshot   = "snapshot"
	EventRegistered = "registered" // new
	EventUpdated    = "updated"    // registered again
	EventRemoved    = "removed"
	EventSuspected  = "suspected"
	EventRecovered  = "recovered"
	EventMoved      = "moved"     // to another home, as its own is gone
	EventConfirmed  = "confirmed" // has accepted its new home
	EventView       = "view"      // of the ring
	EventMerged     = "merged"    // sides of the ring have exchanged what they know
)

// CauseMerge is the cause of events about elements that another side of the ring
// knew otherwise.
const CauseMerge = "merge"

// Problem is the body of every error answer (RFC 9457), media type
// application/problem+json.
type Problem struct {
	Type   string  `json:"type"` // "about:blank"
	Title  string  `json:"title"`
	Status int     `json:"status"`
	Detail string  `json:"detail,omitempty"`
	Causes []Cause `json:"causes,omitempty"` // of a refused registration
}

// Cause is an RFC 5354 error cause.
type Cause struct {
	Code string `json:"code"` // hexadecimal
	Name string `json:"name"`
	// Policy is the policy that the cause quotes: the pool's own, or one that is
	// not supported.
	Policy *Policy `json:"policy,omitempty"`
}

// EscapeHandle writes a pool handle, which is any octets, as text: graphic ASCII
// octets stand for themselves, except the backslash; that and all others become
// \xNN. UnescapeHandle gives back the same octets.
func EscapeHandle(h param.PoolHandle) string {
	plain := true
	for i := 0; i < len(h); i++ {
		if !graphic(h[i]) {
			plain = false
			break
		}
	}
	if plain {
		return string(h)
	}
	var b strings.Builder
	for i := 0; i < len(h); i++ {
		if graphic(h[i]) {
			b.WriteByte(h[i])
		} else {
			fmt.Fprintf(&b, `\x%02x`, h[i])
		}
	}
	return b.String()
}

func graphic(c byte) bool { return c > ' ' && c < 0x7f && c != '\\' }

// UnescapeHandle reads what EscapeHandle writes. Octets that EscapeHandle would
// have escaped stand for themselves too, so that a handle can be typed as it is;
// only the backslash can't.
func UnescapeHandle(s string) (param.PoolHandle, error) {
	if s == "" {
		return "", fmt.Errorf("empty pool handle")
	}
	if !strings.Contains(s, `\`) {
		return param.PoolHandle(s), nil
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		if len(s) < i+4 || s[i+1] != 'x' {
			return "", fmt.Errorf(`pool handle %q: a backslash starts \xNN`, s)
		}
		octet, err := hex.DecodeString(s[i+2 : i+4])
		if err != nil {
			return "", fmt.Errorf("pool handle %q: %w", s, err)
		}
		out = append(out, octet...)
		i += 3
	}
	return param.PoolHandle(out), nil
}

// ParseID reads an identifier of an element or registrar: hexadecimal with 0x,
// or decimal.
func ParseID(s string) (uint32, error) {
	digits, base := s, 10
	if hexDigits, ok := strings.CutPrefix(s, "0x"); ok {
		digits, base = hexDigits, 16
	}
	id, err := strconv.ParseUint(digits, base, 32)
	if err != nil {
		return 0, fmt.Errorf("identifier %q is not a number of 32 bits", s)
	}
	if id == 0 {
		return 0, fmt.Errorf("identifier 0 means no one")
	}
	return uint32(id), nil
}
