package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// failovers of each kind.
const failovers = 20

// failoverRow is what sessionbench prints about one kind of failover.
type failoverRow struct {
	Fault             string
	Times             int
	P50, P99, Longest time.Duration
}

// sessionFailovers compares sessions over SCTP with those over TCP in one boot. Only the
// ratios count here. The kernel answers SCTP's own heartbeats for a process that has
// stopped: sessions find that by theirs, over SCTP as over TCP.
func sessionFailovers(l *lab) {
	l.registrar(pr1, "rspd", "--admin", "off", "--log-level", "error")
	measure := func(network string) (rows []failoverRow) {
		out, err := l.output(5*time.Minute, pu1, network, l.bin("sessionbench"), "failover", "--registrar", "sctp://"+pr1.asap(),
			"--network", network, "--in", "pe1="+pe1.a(), "--in", "pe2="+pe2.a(), "--presets", "fast", "--pace", "5ms",
			"--count", strconv.Itoa(failovers), "--json")
		if err == nil {
			for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
				var r failoverRow
				if err = d.Decode(&r); err != nil {
					break
				}
				rows = append(rows, r)
			}
		}
		if err == nil && len(rows) != 3 {
			err = errors.New("not three rows")
		}
		if err != nil {
			err = fmt.Errorf("%w: %s", err, tail(out))
		}
		l.need("failovers over "+network, err)
		return rows
	}
	tcp, sctp := measure("tcp"), measure("sctp")
	// Rows of docs/performance.md.
	ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
	for i, s := range sctp {
		t := tcp[i]
		l.note("| %s | %.1f ms | %.1f ms | %.1f ms | %.1f ms | %.2f | %.2f |", s.Fault, ms(t.P50), ms(s.P50), ms(t.P99), ms(s.P99),
			float64(s.P50)/float64(t.P50), float64(s.P99)/float64(t.P99))
	}
}
