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
// A request becomes a handlespace.Command, which is put into one order with all
// others before it is applied: a registrar alone applies it at once, one in a ring
// when the ring delivers it. What follows from it here happens then; the answer
// goes out when the other members have applied it too. Deadlines that pass, dead
// elements and reports take the same way.
//
// # Ring
//
// The ring's goroutine hands what was ordered to the owner loop and waits until it
// is applied, for its token says so to the others. The loop hands proposals to the
// ring without ever waiting for it: what the ring has no room for stays in a
// backlog, and when that is long, registrations are refused.
//
// A member that joins opens its ASAP endpoints when it knows what the others know.
// Until then their ports are closed, because of all refusals a closed port is the
// one that a hunting element or user leaves soonest.
package registrar
