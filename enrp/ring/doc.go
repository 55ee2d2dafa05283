// Package ring is a fault-tolerant token session service: membership in agreed
// views, ordered reliable multicast, and mutual exclusion, for a group of up to a
// few dozen processes. It orders opaque payloads and knows nothing of what they
// mean. docs/ring.md describes the protocol.
//
// [Machine] is a pure state machine: no goroutine, clock, socket, logger or
// randomness of its own. The caller passes in what happened and when (Step, Tick,
// Propose, Found, Lost, ...) and does what [Machine.Ready] returns, in this order:
//
//  1. make Output.Persist durable,
//  2. apply Output.Events, in order and to the end,
//  3. send Output.Messages, each to its member, in order or not at all.
//
// A token among the messages tells the others that what it carries has been
// applied here; that is why events go first. Messages may be lost, delayed,
// duplicated and reordered.
//
// A Machine is not safe for concurrent use. Package ringnet drives one over real
// transports.
package ring
