// Package fault names ways to break the ring on purpose. Each takes away one rule
// of docs/ring.md. Tests switch them on, one at a time, to show that the simulator
// would find the mistake.
package fault

// Set is a set of faults.
type Set uint64

// Has reports whether f is in the set.
func (s Set) Has(f Set) bool { return s&f != 0 }

// The faults.
const (
	// PromiseWithoutOwnAdditions: a promise brings the token as it was accepted.
	PromiseWithoutOwnAdditions Set = 1 << iota
	// StableOnOldCopy: what is in the copies of an install counts as stable.
	StableOnOldCopy
	// HeadDroppedBeforeRound: the head leaves the token at its second stop.
	HeadDroppedBeforeRound
	// RemainderDropped: the head does not reach the first token.
	RemainderDropped
	// HeadWithGaps: the head goes on behind entries that nobody could give.
	HeadWithGaps
	// ForeignRemainderDelivered: a member delivers the rest of all views.
	ForeignRemainderDelivered
	// RestartedMemberIsItself: incarnations are not looked at.
	RestartedMemberIsItself
	// PromiseToDeafCaller: members are called unheard, and promise without proof
	// that the caller hears them.
	PromiseToDeafCaller
	// LatePacketIsJoin: a packet of a former member brings it back.
	LatePacketIsJoin
	// ExchangeSkippedAfterInterrupted: members of one view need no exchange,
	// even if they did not end the one they were at.
	ExchangeSkippedAfterInterrupted
	// ExchangeSkippedAtMerge: members of several views need no exchange.
	ExchangeSkippedAtMerge
	// SkipDeadMember: the token passes over a member that does not acknowledge.
	SkipDeadMember
	// AcceptOldView: a token of an older view is accepted after a promise.
	AcceptOldView
	// AcceptSameHop: a duplicate of the last hop is accepted again.
	AcceptSameHop
	// AckUnaccepted: tokens are acknowledged before they are looked at.
	AckUnaccepted
	// SecondFirstToken: a call that lacks promises installs what it has, and the
	// whole list later.
	SecondFirstToken
	// InstallWithoutPromises: a call that lacks promises installs the list.
	InstallWithoutPromises
	// PromiseLower: calls with lower numbers are promised, too.
	PromiseLower
	// CallSameNumber: a call does not raise the counter.
	CallSameNumber
	// StarvedCallAlwaysPromised: a recent token is no reason to refuse, or to
	// wait.
	StarvedCallAlwaysPromised
	// StableBeforeEnd: stable is reported during an exchange.
	StableBeforeEnd
	// StableAtSight: own proposals are reported stable when delivered.
	StableAtSight
	// ProposeAgainFromToken: what was in a token is proposed again in the next view.
	ProposeAgainFromToken
	// MergeDropsMember: a merge goes on without members that do not answer.
	MergeDropsMember
	// FenceReset: fences begin anew with each view.
	FenceReset
	// LockSurvivesHolder: a lock stays with a member that left the view.
	LockSurvivesHolder
	// LocksSurviveMerge: locks are kept through an exchange.
	LocksSurviveMerge
	// MinorityGrants: primary mode grants in any view, and at once.
	MinorityGrants
	// OneWayNeighbours: ring neighbours need not hear each other.
	OneWayNeighbours
	// UnboundedVisit: a member adds all that it has.
	UnboundedVisit
	// HoldOffIgnored: unsteady members are merged at once.
	HoldOffIgnored
	// LostIsWanted: who hears that a connection fell takes the token for coming.
	LostIsWanted

	end
)

// All lists the faults in their order.
func All() []Set {
	var all []Set
	for f := Set(1); f < end; f <<= 1 {
		all = append(all, f)
	}
	return all
}

// String names a single fault.
func (s Set) String() string { return names[s] }

var names = map[Set]string{
	PromiseWithoutOwnAdditions:      "PromiseWithoutOwnAdditions",
	StableOnOldCopy:                 "StableOnOldCopy",
	HeadDroppedBeforeRound:          "HeadDroppedBeforeRound",
	RemainderDropped:                "RemainderDropped",
	HeadWithGaps:                    "HeadWithGaps",
	ForeignRemainderDelivered:       "ForeignRemainderDelivered",
	RestartedMemberIsItself:         "RestartedMemberIsItself",
	PromiseToDeafCaller:             "PromiseToDeafCaller",
	LatePacketIsJoin:                "LatePacketIsJoin",
	ExchangeSkippedAfterInterrupted: "ExchangeSkippedAfterInterrupted",
	ExchangeSkippedAtMerge:          "ExchangeSkippedAtMerge",
	SkipDeadMember:                  "SkipDeadMember",
	AcceptOldView:                   "AcceptOldView",
	AcceptSameHop:                   "AcceptSameHop",
	AckUnaccepted:                   "AckUnaccepted",
	SecondFirstToken:                "SecondFirstToken",
	InstallWithoutPromises:          "InstallWithoutPromises",
	PromiseLower:                    "PromiseLower",
	CallSameNumber:                  "CallSameNumber",
	StarvedCallAlwaysPromised:       "StarvedCallAlwaysPromised",
	StableBeforeEnd:                 "StableBeforeEnd",
	StableAtSight:                   "StableAtSight",
	ProposeAgainFromToken:           "ProposeAgainFromToken",
	MergeDropsMember:                "MergeDropsMember",
	FenceReset:                      "FenceReset",
	LockSurvivesHolder:              "LockSurvivesHolder",
	LocksSurviveMerge:               "LocksSurviveMerge",
	MinorityGrants:                  "MinorityGrants",
	OneWayNeighbours:                "OneWayNeighbours",
	UnboundedVisit:                  "UnboundedVisit",
	HoldOffIgnored:                  "HoldOffIgnored",
	LostIsWanted:                    "LostIsWanted",
}
