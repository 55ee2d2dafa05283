// Sessionbench measures sessions: 'sessionbench failover' how long a user waits when
// its element is killed, stops or is cut off, 'sessionbench many' what a session costs
// in memory and goroutines. Both print markdown.
//
//	sessionbench failover --registrar tcp://10.0.0.1 --in NAMESPACE=ADDRESS --in ... --presets fast
//	sessionbench many --registrar tcp://127.0.0.1:3863 --sessions 10000
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/sctp"
	"rserpool/asap/transport/tcp"
	"rserpool/pooluser"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sessionbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "failover":
			return runFailover(ctx, args[1:], out)
		case "many":
			return runMany(ctx, args[1:], out)
		case elementCommand:
			return runElement(ctx, args[1:], os.Stdin, out)
		}
	}
	return errors.New("usage: sessionbench failover|many FLAGS; -help after that shows the flags")
}

// networks returns what elements and users reach each other and registrars by.
func networks() *transport.Networks { return transport.NewNetworks(sctp.New(), tcp.New()) }

// registrarFlag declares the flag that names the registrar.
func registrarFlag(fs *flag.FlagSet, to *transport.Endpoint) {
	fs.Func("registrar", "`ENDPOINT` of the registrar, such as tcp://127.0.0.1:3863", func(v string) (err error) {
		*to, err = transport.ParseEndpoint(v, transport.TCP, asap.Port)
		return err
	})
}

// newResolver returns a running resolver that always asks the registrar: elements come
// and go here all the time.
func newResolver(registrar transport.Endpoint) (*pooluser.Resolver, error) {
	r, err := pooluser.New(pooluser.Config{Registrars: []transport.Endpoint{registrar}, Networks: networks()})
	if err != nil {
		return nil, err
	}
	r.Start()
	return r, nil
}

// knows asks the registrar and tells whether a pool has just these elements.
func knows(ctx context.Context, r *pooluser.Resolver, pool param.PoolHandle, ids ...param.PEID) bool {
	answer, err := r.Renew(ctx, pool)
	if err != nil || len(answer.Elements) != len(ids) {
		return false
	}
	for _, id := range ids {
		found := false
		for _, e := range answer.Elements {
			found = found || e.ID == id
		}
		if !found {
			return false
		}
	}
	return true
}
