package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/sctp"
	"rserpool/enrp"
	"rserpool/enrp/table"
)

// known is what a registrar says by ENRP: itself, the PE checksum of its elements,
// and all elements.
type known struct {
	Registrar param.RegistrarID
	Checksum  uint16
	Elements  []knownElement
}

type knownElement struct {
	Handle string
	ID     param.PEID
	Home   param.RegistrarID
}

// printTable reads the handle table of the registrar at an ENRP endpoint and prints
// it.
func printTable(at string) error {
	endpoint, err := transport.ParseEndpoint(at, transport.SCTP, enrp.Port)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := transport.NewNetworks(sctp.New()).Dial(ctx, nil, endpoint, transport.Options{DefaultPPID: transport.PPIDENRP})
	if err != nil {
		return err
	}
	defer conn.Close()
	k, err := readTable(ctx, conn)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(k)
}

func readTable(ctx context.Context, conn transport.Conn) (known, error) {
	var k known
	self := param.ServerInformation{ID: param.RegistrarID(os.Getpid()) | 0x7e000000, Transport: param.Transport{Type: param.TypeSCTPTransport}}
	for _, a := range conn.LocalAddrs() {
		self.Transport.Port = a.Port()
		self.Transport.Addrs = append(self.Transport.Addrs, a.Addr())
	}
	reader, err := table.New(table.Config{Server: self}, time.Now())
	if err != nil {
		return k, err
	}
	buf := make([]byte, transport.MaxMessage)
	for !reader.Done() {
		for _, m := range reader.Ready() {
			data, err := m.Append(nil)
			if err != nil {
				return k, err
			}
			if err := conn.Send(ctx, transport.Message{Data: data}); err != nil {
				return k, err
			}
		}
		wait, cancel := context.WithDeadline(ctx, reader.Deadline())
		received, err := conn.Receive(wait, buf)
		expired := wait.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case expired:
			reader.Tick(time.Now())
		case err != nil:
			return k, err
		default:
			m, _, err := enrp.Decode(received.Data)
			if err != nil {
				return k, err
			}
			if p, ok := m.(*enrp.Presence); ok {
				k.Checksum = p.Checksum
			}
			reader.Step(m, time.Now())
		}
	}
	t, err := reader.Result()
	k.Registrar = t.Registrar
	for _, pool := range t.Pools {
		for _, e := range pool.Elements {
			k.Elements = append(k.Elements, knownElement{string(pool.Handle), e.ID, e.Home})
		}
	}
	return k, err
}

// table reads the handle table of the registrar on a host.
func (l *lab) table(from, registrar host) (k known, err error) {
	l.commands++
	out, err := l.output(25*time.Second, from, fmt.Sprintf("table-%d", l.commands), l.bin("labrun"), "-table", registrar.enrp())
	if err != nil {
		return k, fmt.Errorf("table of %s: %w: %s", registrar.name, err, tail(out))
	}
	return k, json.Unmarshal([]byte(out), &k)
}

// consistent waits until the registrars on these hosts know the same elements, so
// many, with the same homes, all among them, and each announces the checksum that
// its elements have in everybody's table.
func (l *lab) consistent(limit time.Duration, elements int, registrars ...host) error {
	return within(limit, func() error {
		var tables []known
		homes := make(map[param.RegistrarID]bool)
		for _, h := range registrars {
			k, err := l.table(odd, h)
			if err != nil {
				return err
			}
			slices.SortFunc(k.Elements, func(a, b knownElement) int {
				return cmp.Or(cmp.Compare(a.Handle, b.Handle), cmp.Compare(a.ID, b.ID))
			})
			tables = append(tables, k)
			homes[k.Registrar] = true
		}
		var errs []error
		for i, k := range tables {
			if len(k.Elements) != elements || !slices.Equal(k.Elements, tables[0].Elements) {
				errs = append(errs, fmt.Errorf("%s knows %v", registrars[i].name, k.Elements))
			}
			sums := make(map[param.RegistrarID]*param.Checksum)
			for id := range homes {
				sums[id] = new(param.Checksum)
			}
			for _, e := range k.Elements {
				if sums[e.Home] == nil {
					errs = append(errs, fmt.Errorf("%s says that %s/%v has home %v", registrars[i].name, e.Handle, e.ID, e.Home))
					continue
				}
				sums[e.Home].Add(param.PoolHandle(e.Handle), e.ID)
			}
			for _, other := range tables {
				if got := sums[other.Registrar].Sum(); got != other.Checksum {
					errs = append(errs, fmt.Errorf("by %s's table %v has checksum %#04x, by its own word %#04x", registrars[i].name, other.Registrar, got, other.Checksum))
				}
			}
		}
		if len(errs) == 0 && len(homes) != len(registrars) {
			errs = append(errs, fmt.Errorf("identifiers %v", slices.Collect(maps.Keys(homes))))
		}
		return errors.Join(errs...)
	})
}
