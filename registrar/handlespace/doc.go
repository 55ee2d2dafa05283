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
//   - Pools are found in a directory of small parts, each of which the writer
//     replaces through an atomic pointer when a pool comes or goes: no lock at all.
//   - Each pool has a mutex over its elements and its chooser. A choice changes
//     state (whose turn is next), so readers of one pool have to take turns, but
//     readers of different pools never meet.
//   - The index over all pools (their order, sums, and by home the deadlines) has a
//     mutex that resolutions don't touch.
//
// [Record]s are immutable and hold the encoded Pool Element parameter: answering a
// resolution copies octets and encodes nothing, and whoever wants to know what is in
// the element decodes it.
//
// # Structure
//
// An element is a place in its pool (element) that points to the record of its
// latest registration. What is searched stands beside what it leads to, so that a search
// does not follow pointers: elements of a pool by identifier, with their homes (in a
// slice while they are few), and, of selection, the order by policy are on pages under a
// tree (internal/pages, google/btree). Pools are in a tree by handle, and each home has
// one of the pools with elements of its own, in which these are found by passing over the
// others.
//
// A removed element gives up its record, but keeps its place in its pool's tree until its
// tombstone is forgotten: to remove it searches no other tree but that of the policy, and
// who registers it again finds its tombstone in the same search. Whoever goes through the
// elements of a pool passes over such places, so that a pool has no more of them than it
// once had elements; further removed elements, and marks of what never was there, are
// apart. Members of pools that are gone are kept by handle. Places are parts of large
// slices, of which the garbage collector marks each once. They are used again, and given
// back when there are neither elements nor tombstones left. A tree has the tombstones in
// the order in which they are forgotten.
//
// The elements of a home are on pages of some milliseconds each by when they are due; a
// page is put in order when its turn comes, which takes 0.1 us for each of its elements
// (the index's mutex is held meanwhile). Deadlines are lazy: an element that registers
// again stays where it is and is filed anew only when its former deadline comes up. So
// keep-alives and re-registrations change no tree but that of the policy, and no deadline
// has a timer or a goroutine, and to remove what is due takes no search.
//
// With n elements and tombstones every command takes O(log n), those about many (Takeover,
// Merge, Sweep) for each of them, and a resolution of k elements what
// the policy takes, at most O(k log n). Checksums per home (RFC 5353, section 3.6.2)
// and digests are kept up to date by each change. No change copies more than a few
// KiB: what grows, grows in pieces.
//
// Octets per element with one IPv4 address, under Round Robin: 192 the record with its
// encoded form, 152 the place with what its chooser knows, some 28 on a page of the
// pool's identifiers, which is two thirds full, and 20 on a page of deadlines. Least Used
// adds 24, Weighted Random 13. BenchmarkMemory measures the sum; what is resident is more by what
// the garbage collector leaves between records that were replaced. A pool takes some
// 700 more; what a removed element leaves 300, with a pool that is gone 380.
//
// Whose turn it is, and how often an element was handed out (degradation
// counters), is local to a registrar and not part of the replicated state.
package handlespace
