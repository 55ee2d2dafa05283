package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/enrp"
	"rserpool/enrp/table"
	"rserpool/registrar/admin"
)

// Pools lists the pools of the handle table.
func (f *foreign) Pools(ctx context.Context) ([]admin.Pool, error) {
	t, err := f.readTable(ctx)
	if err != nil {
		return nil, err
	}
	pools := make([]admin.Pool, 0, len(t.Pools))
	for _, p := range t.Pools {
		pools = append(pools, showPool(p))
	}
	return pools, nil
}

// Pool shows one pool of the handle table.
func (f *foreign) Pool(ctx context.Context, h param.PoolHandle) (admin.Pool, error) {
	t, err := f.readTable(ctx)
	if err != nil {
		return admin.Pool{}, err
	}
	for _, p := range t.Pools {
		if p.Handle != h {
			continue
		}
		pool := showPool(p)
		for _, e := range p.Elements {
			pool.Members = append(pool.Members, showElement(h, e))
		}
		return pool, nil
	}
	return admin.Pool{}, fmt.Errorf("pool %s: %w", admin.EscapeHandle(h), errNotFound)
}

// showPool describes a pool without its members. The pool's policy and transport
// are its elements', which a registrar makes agree.
func showPool(p enrp.Pool) admin.Pool {
	pool := admin.Pool{Handle: admin.EscapeHandle(p.Handle), Elements: len(p.Elements)}
	if len(p.Elements) > 0 {
		first := showElement(p.Handle, p.Elements[0])
		pool.Policy, pool.PolicyType = first.Policy.Name, first.Policy.Type
		pool.Transport, pool.Control = first.User.Protocol, first.User.Control
	}
	return pool
}

// Registrars lists the registrar asked and its peers.
func (f *foreign) Registrars(ctx context.Context) ([]admin.RegistrarInfo, error) {
	t, err := f.readTable(ctx)
	if err != nil {
		return nil, err
	}
	return registrarsOf(t), nil
}

func registrarsOf(t table.Table) []admin.RegistrarInfo {
	home := map[param.RegistrarID]int{}
	for _, p := range t.Pools {
		for _, e := range p.Elements {
			home[e.Home]++
		}
	}
	list := []admin.RegistrarInfo{{ID: t.Registrar.String(), Self: true, Elements: home[t.Registrar]}}
	for _, s := range t.Registrars {
		info := admin.RegistrarInfo{ID: s.ID.String(), Elements: home[s.ID], Endpoints: []admin.Endpoint{endpointOf(s.Transport)}}
		if s.ID == t.Registrar {
			list[0].Endpoints = info.Endpoints
		} else {
			list = append(list, info)
		}
	}
	return list
}

func endpointOf(t param.Transport) admin.Endpoint {
	e := admin.Endpoint{Protocol: "enrp", Network: transport.SCTP}
	if t.Type == param.TypeTCPTransport {
		e.Network = transport.TCP
	}
	for _, a := range t.AddrPorts() {
		e.Addrs = append(e.Addrs, a.String())
	}
	return e
}

// Status tells what the handle table says about the registrar. One that gives
// its table away is ready.
func (f *foreign) Status(ctx context.Context) (admin.Status, error) {
	t, err := f.readTable(ctx)
	if err != nil {
		return admin.Status{}, err
	}
	self := registrarsOf(t)[0]
	s := admin.Status{Registrar: self.ID, Ready: true, Pools: len(t.Pools), Endpoints: notNil(self.Endpoints), Networks: []admin.Network{}}
	var sum param.Checksum
	for _, p := range t.Pools {
		s.Elements += len(p.Elements)
		for _, e := range p.Elements {
			if e.Home == t.Registrar {
				sum.Add(p.Handle, e.ID)
			}
		}
	}
	s.Checksum = fmt.Sprintf("0x%04x", sum.Sum())
	return s, nil
}

// elements are the elements of a handle table.
type elements map[elementKey]param.PoolElement

type elementKey struct {
	handle param.PoolHandle
	id     param.PEID
}

// look reads the elements of one pool, or of all.
func (f *foreign) look(ctx context.Context, h param.PoolHandle) (elements, error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	t, err := f.readTable(ctx)
	if err != nil {
		return nil, err
	}
	found := elements{}
	for _, p := range t.Pools {
		if h != "" && p.Handle != h {
			continue
		}
		for _, e := range p.Elements {
			found[elementKey{p.Handle, e.ID}] = e
		}
	}
	return found, nil
}

// Watch reads the handle table again and again and reports what has changed. A
// registrar that is away for a while is waited for, unless it is at first.
func (f *foreign) Watch(ctx context.Context, h param.PoolHandle, report func(admin.Event) error) error {
	before, err := f.look(ctx, h)
	if err != nil {
		return err
	}
	seq := uint64(1)
	if err := report(admin.Event{Seq: seq, Time: time.Now(), Type: admin.EventSnapshot}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(f.interval):
		}
		after, err := f.look(ctx, h)
		if err != nil {
			continue
		}
		for _, e := range changes(before, after) {
			seq++
			e.Seq, e.Time = seq, time.Now()
			if err := report(e); err != nil {
				return err
			}
		}
		before = after
	}
}

// changes returns what happened between two looks, by handle and identifier.
func changes(before, after elements) []admin.Event {
	keys := slices.Collect(maps.Keys(after))
	for k := range before {
		if _, still := after[k]; !still {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b elementKey) int {
		return cmp.Or(cmp.Compare(a.handle, b.handle), cmp.Compare(a.id, b.id))
	})
	var events []admin.Event
	for _, k := range keys {
		old, was := before[k]
		now, is := after[k]
		e := admin.Event{Handle: admin.EscapeHandle(k.handle), ID: k.id.String()}
		shown := showElement(k.handle, now)
		switch {
		case !is:
			e.Type = admin.EventRemoved
			shown = showElement(k.handle, old)
		case !was:
			e.Type = admin.EventRegistered
		case !reflect.DeepEqual(old, now):
			e.Type = admin.EventUpdated
		default:
			continue
		}
		e.Element = &shown
		events = append(events, e)
	}
	return events
}
