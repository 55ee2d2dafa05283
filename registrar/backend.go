package registrar

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/registrar/admin"
	"rserpool/registrar/handlespace"
)

// newAdmin opens the admin interface, nil if there is none.
func (r *Registrar) newAdmin(ctx context.Context) (*admin.Server, error) {
	if r.cfg.Admin.Address == "" {
		return nil, nil
	}
	s, err := admin.Listen(ctx, admin.Config{
		Address:     r.cfg.Admin.Address,
		AllowRemote: r.cfg.Admin.AllowRemote,
		Hosts:       r.cfg.Admin.Hosts,
		Backend:     backend{r},
		Feed:        r.feed,
		Gatherer:    r.metrics.registry,
		Log:         r.cfg.Log,
	})
	if err == nil {
		r.cfg.Log.WithFields(logrus.Fields{"protocol": "http", "network": transport.TCP, "addresses": []string{s.Addr().String()}}).Info("listening")
	}
	return s, err
}

// backend is the registrar as the admin API sees it.
type backend struct{ r *Registrar }

func (b backend) Space() *handlespace.Space { return b.r.space }

func (b backend) Ready() bool { return b.r.ready.Load() }

func (b backend) Certain() bool { return b.r.ready.Load() && !b.r.unsure.Load() }

// unavailable says that it is for the registrar's state that something can't be
// done now.
func unavailable(err error) error { return fmt.Errorf("%w: %w", admin.ErrUnavailable, err) }

// statusPatience bounds how long a status waits for the ring.
const statusPatience = time.Second

func (b backend) Status() admin.Status {
	r := b.r
	counts := r.space.Counts()
	s := admin.Status{
		Registrar: r.id.String(),
		Version:   r.cfg.Version,
		Started:   r.started,
		Ready:     r.ready.Load(),
		Compat:    string(r.cfg.Compat),
		Strict:    r.cfg.Strict,
		Pools:     counts.Pools,
		Elements:  counts.Elements,
		Suspects:  counts.Suspects,
		Checksum:  checksumText(r.space.Home(r.id)),
		Endpoints: b.endpoints(),
		Conns:     r.census.len(),
	}
	for _, name := range []string{transport.SCTP, transport.TCP} {
		n := admin.Network{Name: name}
		if _, err := r.cfg.Networks.Get(name); err != nil {
			n.Error = err.Error()
		}
		s.Networks = append(s.Networks, n)
	}
	s.Subscribed = int(r.subscribed.Load())
	digest := r.space.Digest()
	s.Digest = fmt.Sprintf("0x%016x", digest.Sum())
	ctx, cancel := context.WithTimeout(r.ctx, statusPatience)
	defer cancel()
	switch ring, err := b.Ring(ctx); {
	case err == nil:
		s.Ring = ring.Summary()
		s.Ring.Settings = alike(&r.cfg.Limits)
	case r.cfg.Ring.On():
		s.Ring = &admin.RingSummary{Cluster: r.cfg.Ring.Cluster, Error: err.Error()}
	}
	return s
}

// alike returns the limits that decide what becomes of a command, by the names of rspd's
// flags: members of a ring apply the same commands, and need the same limits to come to
// the same.
func alike(l *Limits) map[string]string {
	out := make(map[string]string)
	for name, value := range map[string]any{
		"limit-pools": l.Pools, "limit-pools-per-client": l.PoolsPerClient, "limit-elements": l.Elements,
		"limit-element-size": l.ElementSize, "max-bad-pe-reports": l.MaxBadPEReports,
		"removal-window": l.RemovalWindow, "removal-floor": l.RemovalFloor, "removal-share": l.RemovalShare,
		"hold-back": l.HoldBack, "hold-back-share": l.HoldBackShare,
		"tombstone-life": l.Tombstone, "limit-tombstones": l.Tombstones,
	} {
		out[name] = fmt.Sprint(value)
	}
	return out
}

func (b backend) endpoints() []admin.Endpoint {
	var out []admin.Endpoint
	for _, a := range b.r.addresses {
		out = append(out, admin.Endpoint{Protocol: a.Protocol, Network: a.Network, Addrs: texts(a.Addrs)})
	}
	return out
}

func texts(addrs []netip.AddrPort) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// Registrars lists this registrar, others that are home to elements, and those
// that were heard announcing themselves.
func (b backend) Registrars() []admin.RegistrarInfo {
	out := []admin.RegistrarInfo{{
		ID: b.r.id.String(), Self: true, Endpoints: b.endpoints(),
	}}
	at := map[string]int{out[0].ID: 0} // in out
	other := func(id string) *admin.RegistrarInfo {
		i, ok := at[id]
		if !ok {
			i = len(out)
			at[id], out = i, append(out, admin.RegistrarInfo{ID: id})
		}
		return &out[i]
	}
	ctx, cancel := context.WithTimeout(b.r.ctx, statusPatience)
	defer cancel()
	if ring, err := b.Ring(ctx); err == nil {
		for _, m := range ring.Members {
			other(m.ID).Role = admin.RoleMember
		}
	}
	for _, p := range b.r.known() {
		info := other(p.ID.String())
		info.Role, info.LastHeard = admin.RolePeer, &p.LastHeard
		if t := p.Transport; !t.IsZero() {
			e := admin.Endpoint{Protocol: string(protoENRP), Network: endpointOf(t).Network}
			for _, a := range t.AddrPorts() {
				e.Addrs = append(e.Addrs, a.String())
			}
			info.Endpoints = append(info.Endpoints, e)
		}
	}
	for _, home := range b.r.space.Homes() {
		info := other(home.ID.String())
		info.Elements, info.Checksum = home.Elements, checksumText(home)
	}
	for id, heard := range b.heard() {
		other(id.String()).LastHeard = &heard
	}
	return out
}

func checksumText(h handlespace.Home) string { return fmt.Sprintf("0x%04x", h.Checksum()) }

func (b backend) heard() map[param.RegistrarID]time.Time {
	result := make(chan map[param.RegistrarID]time.Time, 1)
	if !b.r.post(func(now time.Time) { result <- b.r.owner.heard(now) }) {
		return nil
	}
	select {
	case heard := <-result:
		return heard
	case <-b.r.ctx.Done():
		return nil
	}
}

func (b backend) Register(ctx context.Context, handle param.PoolHandle, e param.PoolElement) ([]handlespace.Event, error) {
	if causes := b.r.policyRefusal(handle, &e); causes != nil {
		return []handlespace.Event{handlespace.Rejected{Handle: handle, ID: e.ID, Causes: causes}}, nil
	}
	e.Home = b.r.id
	return b.submit(ctx, handlespace.Register{
		Handle: handle, Element: e, Raiser: b.r.id, Incarnation: b.r.incarnation, Now: time.Now(),
	})
}

// submit can fail for no other reason than the registrar's state.
func (b backend) submit(ctx context.Context, cmd handlespace.Command) ([]handlespace.Event, error) {
	events, err := b.r.Submit(ctx, cmd)
	if err != nil {
		return nil, unavailable(err)
	}
	return events, nil
}

func (b backend) Remove(ctx context.Context, handle param.PoolHandle, id param.PEID) ([]handlespace.Event, error) {
	return b.submit(ctx, handlespace.Remove{Handle: handle, ID: id, Cause: handlespace.Administrative, Now: time.Now()})
}

func (b backend) Reload() error {
	if b.r.cfg.OnReload == nil {
		return errors.New("this registrar has no configuration to read again")
	}
	return b.r.cfg.OnReload()
}
