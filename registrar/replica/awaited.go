package replica

import "rserpool/enrp/ring"

// Awaited lists the other members that have not told yet what they know, or have not
// taken in what they were told, in the exchange that runs.
func (r *Replica) Awaited() []ring.Member {
	x := r.exchange
	if x == nil {
		return nil
	}
	var out []ring.Member
	for i, n := range x.view.Members {
		if i != x.self && (x.digests[i] == nil || len(x.waiting) > 0 && x.waiting[i] || len(x.merging) > 0 && x.merging[i]) {
			out = append(out, n.Member)
		}
	}
	return out
}
