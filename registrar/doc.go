// Package registrar is the registrar of RSerPool (RFC 5352) as a library: New
// makes one of a Config, Start and Stop or Run operate it, Reload changes timers
// and limits while it runs. Several can run in one process.
//
// # Goroutines
//
// The owner has the writing end of the handlespace, the pure machines (keep-alives,
// subscriptions, announcements, rate limits) and the knowledge of which element is
// reached over which connection; one goroutine at a time does its work. That is the
// owner loop, or a reader, or the ring's goroutine, which do it themselves when nobody
// is at it, as waking the loop would take longer; else it waits for the one who is.
// Deadlines of elements lie in ordered sets; an element costs no goroutine and no timer.
//
// Each association or connection has one reader. It decodes; it answers handle
// resolutions, handle table requests and malformed messages itself, from the
// reading side of the handlespace, and collects answers while more requests are
// there; everything else it passes to the owner. What the owner sends goes through
// a bounded queue, which is emptied at the end of its turn; what the network does not
// take at once is left to a writer, which exists only while there is something to
// send. A peer that does not read is cut off.
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
// The ring's goroutine applies what was ordered, or hands what takes longer to the
// owner loop and waits until it is applied, for its token says so to the others. Answers
// go out when the token has gone on. The owner hands proposals to the
// ring without ever waiting for it: what the ring has no room for stays in a
// backlog, and when that is long, registrations are refused.
//
// A member that joins opens its ASAP endpoints when it knows what the others know.
// Until then their ports are closed, because of all refusals a closed port is the
// one that a hunting element or user leaves soonest.
package registrar
