package admin

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"rserpool/registrar/handlespace"
)

// ErrNoRing is what a Backend without a ring says.
var ErrNoRing = errors.New("this registrar is in no ring")

// Ring is the answer of PathRing: the ring as one member sees it.
type Ring struct {
	Cluster string `json:"cluster"`
	State   string `json:"state"` // hungry, eating, starving, calling, promised, left
	// View names the view, the same at all its members; Cause is why it came.
	View        string `json:"view"`
	Coordinator string `json:"coordinator"`
	Cause       string `json:"cause"`
	// Synced: all members of the view know the same. Whole: that, no configured
	// peer is missing, and there are as many members as are wanted.
	Synced  bool         `json:"synced"`
	Whole   bool         `json:"whole"`
	Members []RingMember `json:"members"`
	// Outside are members that answer but are not in the view. Missing are
	// configured addresses where nobody answers, MissingErrors why, as far as it is
	// known, by address.
	Outside       []RingMember      `json:"outside,omitempty"`
	Missing       []string          `json:"missing,omitempty"`
	MissingErrors map[string]string `json:"missing_errors,omitempty"`

	Hop uint64 `json:"hop"`
	// Sequence is the newest entry delivered in this view, StableLag how many
	// of the newest are not known to be everywhere.
	Sequence  uint64  `json:"sequence"`
	StableLag uint64  `json:"stable_lag"`
	Rotation  float64 `json:"rotation"` // of the token, latest, seconds
	// Backlog are own entries that wait for the token.
	Backlog       int `json:"backlog"`
	BacklogOctets int `json:"backlog_octets"`
	InToken       int `json:"in_token"` // entries

	// Ack is when registrations are acknowledged: stable, local, min-members=N.
	// Wanted is how many members that, or locks, take; 0: any number. HeldAnswers
	// wait because there are fewer.
	Ack         string `json:"ack"`
	Wanted      int    `json:"wanted,omitempty"`
	HeldAnswers int    `json:"held_answers"`
	// Exchange is the one that runs: nothing is acknowledged until its end.
	Exchange *RingExchange `json:"exchange,omitempty"`
	// MaxSkew is by how much clocks may differ before the log warns, seconds.
	MaxSkew float64 `json:"max_skew"`

	Locks    []RingLock   `json:"locks,omitempty"`
	Changes  []RingChange `json:"changes"` // of the view, newest first
	Counters RingCounters `json:"counters"`
}

// States of a RingMember as known at the member asked.
const (
	MemberSelf      = "self"
	MemberConnected = "connected"
	MemberAway      = "away" // no connection at the moment
)

// RingMember is one life of a member.
type RingMember struct {
	ID          string     `json:"id"`
	Incarnation string     `json:"incarnation"` // number, too large for some readers of JSON
	Contact     string     `json:"contact"`
	State       string     `json:"state"`
	HeldOff     *time.Time `json:"held_off,omitempty"` // unsteady: not merged with until then
	Since       *time.Time `json:"since,omitempty"`    // of the connection
	Error       string     `json:"error,omitempty"`    // latest
	Sent        uint64     `json:"sent_octets"`
	Received    uint64     `json:"received_octets"`
	Dropped     uint64     `json:"dropped"` // messages for it, as its queue was full
	Clock       *RingClock `json:"clock,omitempty"`
	// Clash: it lives, and uses the identifier of a member of the view.
	Clash bool `json:"clash,omitempty"`
}

// RingClock is by how much a member's clock differs from that of the one asked.
type RingClock struct {
	Ahead float64 `json:"ahead"` // seconds; less than 0: it is behind
	Error float64 `json:"error"` // of Ahead, at most; seconds
}

// RingExchange is an exchange of what members know.
type RingExchange struct {
	// Since is when it began, or the first of those before it that were
	// interrupted.
	Since time.Time `json:"since"`
	// With are the members that may know something else, none where a starting
	// registrar waits for others. Awaited have not told, or taken in, all.
	With    []string `json:"with,omitempty"`
	Awaited []string `json:"awaited,omitempty"`
	// Commands wait for the end.
	Commands int `json:"commands"`
}

// RingLock is one lock.
type RingLock struct {
	Name   string   `json:"name"`
	Holder string   `json:"holder,omitempty"`
	Fence  string   `json:"fence,omitempty"`
	Queue  []string `json:"queue,omitempty"`
}

// RingChange is one change of the view.
type RingChange struct {
	Time    time.Time `json:"time"`
	View    string    `json:"view"`
	Cause   string    `json:"cause"`
	Members []string  `json:"members"`
	Joined  []string  `json:"joined,omitempty"`
	Left    []string  `json:"left,omitempty"`
}

// RingCounters count from the start of the registrar on.
type RingCounters struct {
	Views     map[string]uint64 `json:"views"`        // by cause
	Entered   map[string]uint64 `json:"states"`       // by state
	TokenLost map[string]uint64 `json:"token_losses"` // by state
	Refused   map[string]uint64 `json:"calls_refused"`
	Dropped   map[string]uint64 `json:"messages_dropped"`
	// Commands of members that were dropped: "unreadable" here, or there was "no_room"
	// until the end of an exchange.
	Commands map[string]uint64 `json:"commands_dropped"`
	// Connections that were refused, or messages on them.
	Connections map[string]uint64 `json:"connections_refused"`
	Hops        uint64            `json:"hops"`
	Rotations   uint64            `json:"rotations"`
	Resent      uint64            `json:"tokens_resent"`
	Duplicate   uint64            `json:"duplicates"`
	Calls       uint64            `json:"calls"`
	Entries     uint64            `json:"entries"`
	Octets      uint64            `json:"octets"`
	HeldOff     uint64            `json:"merges_held_off"`
	LateHops    uint64            `json:"late_hops"` // tokens acknowledged after more than half of the hop time-out
	Stalls      uint64            `json:"stalls"`    // times that this member itself was late
}

// RingSummary is the ring within a Status.
type RingSummary struct {
	Cluster string   `json:"cluster"`
	View    string   `json:"view"`
	Members []string `json:"members"` // identifiers
	Synced  bool     `json:"synced"`
	Whole   bool     `json:"whole"`
	Missing []string `json:"missing,omitempty"` // those that make it not whole
	Wanted  int      `json:"wanted,omitempty"`  // members, as of Ring
	// Clashes are live registrars under the identifier of a member.
	Clashes []string `json:"clashes,omitempty"`
	// HeldAnswers and Exchange are as of Ring.
	HeldAnswers int           `json:"held_answers,omitempty"`
	Exchange    *RingExchange `json:"exchange,omitempty"`
	// Settings are those that all members need alike, by the names of rspd's flags.
	Settings map[string]string `json:"settings,omitempty"`
	// Error is why nothing is known of the ring.
	Error string `json:"error,omitempty"`
}

// Summary is the ring in short.
func (r Ring) Summary() *RingSummary {
	s := &RingSummary{
		Cluster: r.Cluster, View: r.View, Synced: r.Synced, Whole: r.Whole,
		Wanted: r.Wanted, HeldAnswers: r.HeldAnswers, Exchange: r.Exchange,
	}
	for _, m := range r.Members {
		s.Members = append(s.Members, m.ID)
	}
	s.Missing = append(s.Missing, r.Missing...)
	for _, m := range r.Outside {
		if m.Clash {
			s.Clashes = append(s.Clashes, m.ID+" at "+m.Contact)
		} else {
			s.Missing = append(s.Missing, m.ID)
		}
	}
	return s
}

// RingMergeList is the answer of PathRingMerges, newest first.
type RingMergeList struct {
	Merges []RingMerge `json:"merges"`
}

// RingMerge reports what differed when sides met, and which won.
type RingMerge struct {
	Time  time.Time `json:"time"`
	View  string    `json:"view"`
	Sides []string  `json:"sides"` // the views that met
	// Differences is how many elements differed; Entries shows some of them.
	Differences int         `json:"differences"`
	Entries     []MergeItem `json:"entries,omitempty"`
	Octets      int         `json:"octets"` // exchanged
}

// Results of a MergeItem.
const (
	MergeAdded    = "added"    // one side alone had it
	MergeReplaced = "replaced" // both had it, one won
	MergeRemoved  = "removed"  // one side had removed it, and the removal won
)

// MergeItem is one element about which sides differed.
type MergeItem struct {
	Handle   string `json:"handle"`
	ID       string `json:"id"`
	Result   string `json:"result"`
	KeptHome string `json:"kept_home,omitempty"`
	LostHome string `json:"lost_home,omitempty"`
	Kept     string `json:"kept,omitempty"` // generation
	Lost     string `json:"lost,omitempty"`
}

// ShowMergeEntry describes one difference.
func ShowMergeEntry(e handlespace.MergeEntry) MergeItem {
	item := MergeItem{
		Handle: EscapeHandle(e.Key.Handle), ID: e.Key.ID.String(), Result: MergeReplaced,
		KeptHome: showHome(e.KeptHome), LostHome: showHome(e.LostHome),
		Kept: showGeneration(e.Kept), Lost: showGeneration(e.Lost),
	}
	switch {
	case e.Removed:
		item.Result = MergeRemoved
	case e.Lost == handlespace.Generation{}:
		item.Result = MergeAdded
	}
	return item
}

func showHome(h handlespace.HomeID) string {
	if h.ID == 0 {
		return ""
	}
	return h.ID.String()
}

// showGeneration writes a generation as its time, which for people says most, and
// its raiser.
func showGeneration(g handlespace.Generation) string {
	if g == (handlespace.Generation{}) {
		return ""
	}
	return fmt.Sprintf("%s by %s/%d", time.UnixMicro(int64(g.Stamp)).UTC().Format("2006-01-02T15:04:05.000000Z"), g.Raiser, g.Incarnation)
}

func (s *Server) ring(w http.ResponseWriter, r *http.Request) error {
	ring, err := s.cfg.Backend.Ring(r.Context())
	if errors.Is(err, ErrNoRing) {
		return notFound("%v", err)
	}
	if err != nil {
		return err
	}
	return s.reply(w, http.StatusOK, ring)
}

func (s *Server) ringMerges(w http.ResponseWriter, r *http.Request) error {
	merges, err := s.cfg.Backend.RingMerges(r.Context())
	if errors.Is(err, ErrNoRing) {
		return notFound("%v", err)
	}
	if err != nil {
		return err
	}
	if merges == nil {
		merges = []RingMerge{}
	}
	return s.reply(w, http.StatusOK, RingMergeList{merges})
}
