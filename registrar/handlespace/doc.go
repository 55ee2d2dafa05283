// Package handlespace is a registrar's handlespace: the pools and their elements,
// as a passive, replicated state.
//
// # Writing
//
// [Space.Apply] is the only way to change a [Space]. One goroutine calls it, with
// commands in the one order that all registrars share; with the same Config and
// the same commands every Space ends in the same state and returns the same
// events. Nothing here has a clock: commands carry the time. A deadline that has
// passed becomes a command (Due) which the caller proposes like any other.
//
// Commands race, so those that remove an element name its [Generation] and do
// nothing to another one. What the RFCs leave to order is decided in Apply:
// whether a pool exists, whether an element fits into it, whether a removal still
// means the same element.
//
// # Replication
//
// Every removal leaves a [Tombstone], so that the element stays removed when a side
// comes back that has missed it. [Space.Digest] tells whether, and in which ranges,
// registrars differ; [Space.Scan] gives [Item]s to send, and [Merge] takes those of
// others: of each element the one that wins by [Item.Beats], alike at every registrar.
// What Apply decides by, besides Config, is all part of what is exchanged, but for the
// removals that count against the removal limit, which start anew with each merge.
//
// # Reading
//
// All other methods, unless they say so, may be called by any goroutine at any time,
// also while Apply runs, and see everything that Apply had done when it last returned. Three locks
// keep it so, each held for microseconds and never two at once:
//
//   - Pools are found in a copy-on-write tree that the writer publishes through
//     an atomic pointer whenever a pool comes or goes: no lock at all.
//   - Each pool has a mutex over its elements and its chooser. A choice changes
//     state (whose turn is next), so readers of one pool have to take turns, but
//     readers of different pools never meet.
//   - The orders over all pools, by home and by deadline, have a mutex that
//     resolutions don't touch.
//
// [Record]s are immutable and carry their encoded Pool Element parameter:
// answering a resolution copies octets and encodes nothing.
//
// # Structure
//
// Trees (google/btree): pools by handle; elements of a pool by identifier; all
// elements by home, handle and identifier; all elements by home and deadline.
// The order by policy is selection's. With n elements every command takes
// O(log n), and a resolution of k elements O(log n) for the pool and what its
// policy takes, at most O(k log n). Checksums per home (RFC 5353, section 3.6.2)
// are kept up to date by each change.
//
// Whose turn it is, and how often an element was handed out (degradation
// counters), is local to a registrar and not part of the replicated state.
package handlespace
