// Package registrar is the registrar of RSerPool (RFC 5352) as a library: New
// makes one of a Config, Start and Stop or Run operate it, Reload changes timers
// and limits while it runs. Several can run in one process.
//
// # Goroutines
//
// One goroutine, the owner loop, owns the writing end of the handlespace, the
// pure machines (keep-alives, subscriptions, announcements, rate limits) and the
// knowledge of which element is reached over which connection. Deadlines of
// elements lie in trees; an element costs no goroutine and no timer.
//
// Each association or connection has one reader. It decodes; it answers handle
// resolutions, handle table requests and malformed messages itself, from the
// reading side of the handlespace, and collects answers while more requests are
// there; everything else it passes to the loop. What the loop sends goes through
// a bounded queue that a writer empties, which exists only while there is
// something to send. A peer that does not read is cut off.
//
// # Order
//
// A request becomes a handlespace.Command, which goes through a Sequencer before
// it is applied: the local one delivers at once. The answer goes out when the
// command is stable, and before anything else that follows from it. Deadlines
// that pass, dead elements and reports take the same way.
package registrar
