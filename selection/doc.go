// Package selection holds the pool member selection policies: the nine of RFC 5356,
// rsplib's further ones, three of our own, and those that programs register. A policy
// is described by a [Definition] and has two halves, one for registrars, which choose
// the elements of a reply, and one for pool users, which choose one element of a
// received reply.
//
// # Registrars
//
// A [Chooser] holds the elements of one pool in a structure that suits the
// pool's policy and that Put and Remove keep up to date, so that a choice never
// passes over all elements:
//
//   - Round Robin: a circular list with a head.
//   - Weighted Round Robin: a circle of which an element of weight w owns w
//     evenly spaced points; a tree in the order of the elements' next points.
//   - Random, Peak EWMA: an array, shuffled as far as the reply goes. Power of Two
//     Choices: likewise, with two draws for each place.
//   - Weighted Random, Randomized Least Used and their kin ([Drawn]): a tree of
//     partial sums (Fenwick).
//   - Priority, Least Used, Least Used with Degradation, Priority Least Used and
//     their kin ([Sorted]): a tree in the order of their keys.
//   - Rendezvous Hashing: a tree in the order of identifiers.
//
// Random, Weighted Random and their kin draw several elements of a large pool beforehand,
// and read their memory at a time ([Foretelling]). Power of Two Choices gains nothing by
// that: it draws when it has to.
//
// With n elements in the pool, Put and Remove take O(log n) and a reply of k
// elements O(k log n); Round Robin and the arrays do without the logarithm.
//
// Elements of one Chooser may carry the parameters of other policies (a pool
// that two registrars created at the same time, AMB-38): missing values are
// read as weight 1, priority 0, load 0 and degradation 0.
//
// # Pool users
//
// A [User] takes one element after the other from a received list and leaves out
// those that failed; a [Picker] decides which. What only the user knows comes with the
// [Request] (a key, for [PickRendezvous]) or is told to a [Meter] (response times, for
// [PickPeakEWMA]). Hashes and their weighting are fixed: users of any version give the
// same key to the same element.
//
// # Policies
//
// [Lookup], [ByName] and [All] describe the policies, [Register] adds one; [Parse] and
// [Format] turn a policy parameter into the notation of command lines and back.
// Policies of unknown types are served by Round Robin (AMB-55).
//
// The package knows no clock and no sockets. The random source is the caller's;
// with the same source and the same calls every choice is the same. Nothing here
// is safe for concurrent use unless it says so: a pool guards its own Chooser.
package selection
