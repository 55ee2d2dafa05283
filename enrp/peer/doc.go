// Package peer is what one registrar does with the others by plain RFC 5353:
// finding them and fetching the handlespace at the start (section 3.2), handle
// updates (3.3), presence and the death of peers (3.4), takeover (3.5), audit and
// resynchronisation (3.6).
//
// [Machine] is deterministic and does no input or output: messages, connections
// and times go in; after each call [Machine.Ready] returns what to do, in order.
// It reads the handlespace through [Table] and changes it by the actions [Import],
// [Forget] and [TakeOver], which are plain data.
//
// Registrars that keep one handlespace together by other means, the members of a
// cluster, each have a Machine. They are no peers of each other; towards the
// others each speaks for the elements it is home to, and one of them, the arbiter,
// takes over what dead peers were home to.
//
// A Machine is not safe for concurrent use.
package peer
