// Package param holds the vocabulary of RSerPool and its wire form: the
// parameters of RFC 5354, the policy parameters of RFC 5356, the error causes,
// and what ASAP and ENRP messages have in common (header, padding, rules for
// what is unknown).
//
// A Reader walks through the parameters of a message and can't overrun it; a
// Writer appends parameters to a caller's slice. Both follow these readings of
// RFC 5354:
//
//   - A Length is sent without the padding behind the last nested parameter, and
//     accepted with it (AMB-03, AMB-04). Non-zero padding is accepted.
//   - An unknown parameter stops or skips as the two highest bits of its type
//     say, wherever it is nested; "stop" means the whole message (AMB-05).
//   - Known parameters behind the expected ones are skipped; a missing or
//     misplaced mandatory one makes the message malformed (AMB-06).
//
// Nothing here knows a clock, a socket or a role: whether a value makes sense to
// a registrar is the registrar's business. Only what can't be represented, such
// as a Transport Use of 2 or an SCTP transport without address, is refused here.
package param
