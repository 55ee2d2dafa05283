package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/poolelement"
	"rserpool/poolelement/cookie"
)

// elementCommand makes this program an element that echoes, with a cookie every
// cookieEvery messages. For each line on its standard input it prints its usage.
const elementCommand = "element"

const cookieEvery = 100

// usage is what a process uses.
type usage struct {
	Sessions   int
	Goroutines int
	Heap       uint64 // octets of live objects after a collection
	Stacks     uint64 // octets
	Resident   uint64 // octets
}

// used collects garbage and returns what this process uses.
func used(sessions int) (usage, error) {
	for range 2 { // what a sync.Pool holds outlives the first
		runtime.GC()
	}
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u := usage{Sessions: sessions, Goroutines: runtime.NumGoroutine(), Heap: m.HeapAlloc, Stacks: m.StackInuse}
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return u, nil // only Linux has it
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return u, fmt.Errorf("/proc/self/statm is %q", statm)
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	u.Resident = pages * uint64(os.Getpagesize())
	return u, err
}

func runElement(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	var registrar, listen transport.Endpoint
	fs := flag.NewFlagSet("sessionbench "+elementCommand, flag.ContinueOnError)
	registrarFlag(fs, &registrar)
	fs.Func("listen", "`ENDPOINT` to serve users at", func(v string) (err error) {
		listen, err = transport.ParseEndpoint(v, transport.TCP, 0)
		return err
	})
	pool := fs.String("pool", "", "pool handle")
	id := fs.Uint("id", 0, "PE identifier")
	most := fs.Int("max-sessions", 100, "sessions at a time")
	if err := fs.Parse(args); err != nil {
		return err
	}
	log := logrus.New()
	server, err := poolelement.NewServer(poolelement.ServeConfig{
		Element: poolelement.Config{
			Handle: param.PoolHandle(*pool), ID: param.PEID(*id),
			Registrars: []transport.Endpoint{registrar}, Networks: networks(),
			RetryMin: 20 * time.Millisecond, RetryMax: 100 * time.Millisecond, Log: log,
		},
		Listen:       []transport.Endpoint{listen},
		Cookies:      cookie.Raw{}, // the measurement's own
		MaxSessions:  *most,
		DrainTimeout: 10 * time.Millisecond,
	}, poolelement.HandlerFunc(echo))
	if err != nil {
		return err
	}
	go func() { // ends with the process
		for lines := bufio.NewScanner(in); lines.Scan(); {
			u, err := used(int(server.Stats().Sessions))
			if err == nil {
				err = json.NewEncoder(out).Encode(u)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "sessionbench:", err)
			}
		}
	}()
	return server.Run(ctx)
}

// counter is the session's state: how many messages were echoed.
var counter = cookie.Codec[uint64]{Version: 1}

// echo sends back what comes.
func echo(ctx context.Context, s *poolelement.Session) error {
	var n uint64
	for {
		in, err := s.Receive(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch in.Kind {
		case poolelement.Resumed:
			if n, err = counter.Decode(in.State); err != nil {
				return err
			}
		case poolelement.Data:
			if err := s.Send(ctx, in.Message); err != nil {
				return err
			}
			if n++; n%cookieEvery != 0 {
				continue
			}
			state, err := counter.Encode(n)
			if err == nil {
				err = s.SaveState(ctx, state)
			}
			if err != nil {
				return err
			}
		}
	}
}
