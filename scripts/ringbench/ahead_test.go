package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"rserpool/enrp/ring"
)

// TestBodiesComeInOrder: two members send to each other; what each delivers is what the
// order says, whichever of number and bodies comes first.
func TestBodiesComeInOrder(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	var order []ring.Entry // what a token would carry
	members := []ring.Member{{ID: 1, Incarnation: 7}, {ID: 2, Incarnation: 9}}
	var jobs [2]*job
	var groups [2]*bodies
	var got [2][]string
	for i := range groups {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		jobs[i] = &job{listen: fmt.Sprintf("tcp://127.0.0.1:%d", port-aheadPort), delay: time.Duration(i) * time.Millisecond}
		groups[i] = newBodies(10, func(payload []byte) error {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, ring.Entry{From: members[i], Payload: payload})
			return nil
		}, func(own bool, first, count uint64) {
			got[i] = append(got[i], fmt.Sprint(own == (i == 0), first, count)) // the first member's?
		})
	}
	var ready sync.WaitGroup
	for i := range groups {
		jobs[i].peers = jobs[1-i].listen
		ready.Go(func() {
			if err := groups[i].connect(ctx, members[i], jobs[i]); err != nil {
				t.Error(err)
			}
		})
	}
	ready.Wait()
	handled := [2]int{}
	deliver := func() {
		for i := range groups {
			mu.Lock()
			entries := slices.Clone(order[handled[i]:])
			mu.Unlock()
			handled[i] += len(entries)
			groups[i].handle(entries)
		}
	}
	const each = 100
	for n := range each {
		for i := range groups {
			if err := groups[i].put(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
		}
		if n%7 == 0 {
			deliver()
		}
	}
	all := func(b *bodies) bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.taken[members[0]] == each && b.taken[members[1]] == each
	}
	for until := time.Now().Add(time.Minute); !all(groups[0]) || !all(groups[1]); time.Sleep(time.Millisecond) {
		if deliver(); time.Now().After(until) {
			t.Fatal("not all is delivered")
		}
	}
	if !slices.Equal(got[0], got[1]) || len(got[0]) < 4 {
		t.Errorf("delivered\n%v\n%v", got[0], got[1])
	}
}

// TestBodiesWait: a number without its bodies delivers nothing, and a full queue says so.
func TestBodiesWait(t *testing.T) {
	taken := uint64(0)
	b := newBodies(1<<20, func([]byte) error { return nil }, func(_ bool, _, count uint64) { taken += count })
	other := ring.Member{ID: 2}
	b.self = ring.Member{ID: 1}
	b.handle([]ring.Entry{{From: other, Payload: binary.BigEndian.AppendUint64(nil, 3)}})
	if taken != 0 {
		t.Errorf("%d messages delivered that never came", taken)
	}
	b.received[other] = 3
	b.deliver()
	if taken != 3 {
		t.Errorf("%d messages delivered instead of 3", taken)
	}
	var err error
	for range 2 * aheadOctets >> 20 {
		err = errors.Join(err, b.put(make([]byte, 1<<20)))
	}
	if !errors.Is(err, ring.ErrFull) {
		t.Errorf("a full queue said %v", err)
	}
}
