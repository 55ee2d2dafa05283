package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"rserpool/asap/transport"
	"rserpool/asap/transport/sctp"
)

const (
	manyAssociations = 2000
	maxThreads       = 64
)

// unknownPool is a handle resolution for the pool 'nobody'.
const unknownPool = "0500000e0009000a6e6f626f64790000"

// many holds many associations open at one registrar.
func many(l *lab) {
	r := l.registrar(pr1, "rspd")
	memory := func() (own, kernel int) {
		own, err := r.status("VmRSS")
		if err != nil {
			l.need("read the registrar's memory", err)
		}
		free, err := memAvailable()
		if err != nil {
			l.need("read the machine's memory", err)
		}
		return own, free
	}
	ownBefore, freeBefore := memory()
	begin := time.Now()
	holder := l.mustStart(pu1, "holder", l.bin("labrun"), "-hold", strconv.Itoa(manyAssociations), "-at", sctpOn(pr1, 3863))
	l.need(fmt.Sprintf("%d associations are up", manyAssociations), holder.says("all up", 1, 100*time.Second))
	l.note("set up in %.1f s", time.Since(begin).Seconds())
	l.check("each is answered", holder.says("all answered", 1, 60*time.Second))
	ownAfter, freeAfter := memory()
	threads, err := r.status("Threads")
	if err == nil && threads > maxThreads {
		err = fmt.Errorf("%d threads", threads)
	}
	l.check(fmt.Sprintf("at most %d threads", maxThreads), err)
	l.note("%d threads; per association %.1f KiB in rspd, %.1f KiB in all (rspd, the other end, and both ends in the kernel)", threads,
		float64(ownAfter-ownBefore)/manyAssociations, float64(freeBefore-freeAfter)/manyAssociations)
	time.Sleep(2 * time.Second)
	l.check("they stay", errors.Join(r.running(), holder.running()))
	holder.stop()
	l.check("registrar runs on", errors.Join(r.running(), second(l.members(pr1, "nobody", 0, 0))))
}

func memAvailable() (int, error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(data), "MemAvailable:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, errors.New("no MemAvailable")
	}
	return strconv.Atoi(fields[0])
}

// hold opens n associations to a registrar, asks over each, and waits until it
// is killed.
func hold(n int, at string) error {
	endpoint, err := transport.ParseEndpoint(at, transport.SCTP, 3863)
	if err != nil {
		return err
	}
	var remote []netip.AddrPort
	if remote, err = endpoint.Resolve(context.Background(), nil); err != nil {
		return err
	}
	request, err := hex.DecodeString(unknownPool)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	conns := make([]transport.Conn, n)
	for i := range conns {
		if conns[i], err = sctp.New().Dial(ctx, nil, remote, transport.Options{DefaultPPID: transport.PPIDASAP}); err != nil {
			return fmt.Errorf("association %d: %w", i, err)
		}
	}
	fmt.Println("all up")
	buf := make([]byte, transport.MaxMessage)
	for i, conn := range conns {
		if err := conn.Send(ctx, transport.Message{Data: request}); err != nil {
			return fmt.Errorf("association %d: %w", i, err)
		}
	}
	for i, conn := range conns {
		answer, err := conn.Receive(ctx, buf)
		if err != nil || answer.Data[0] != 0x06 {
			return fmt.Errorf("association %d: %x: %w", i, answer.Data, err)
		}
	}
	fmt.Println("all answered")
	for i, conn := range conns { // ends only when one falls
		if _, err := conn.Receive(ctx, buf); err != nil {
			return fmt.Errorf("association %d: %w", i, err)
		}
	}
	return nil
}
