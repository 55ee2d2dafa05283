package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"rserpool/asap/param"
	"rserpool/cmd/internal/cli"
	"rserpool/cmd/internal/systemd"
	"rserpool/pooluser"
	"rserpool/pooluser/forward"
)

// listening are the settings of local ports that lead to pools.
type listening struct {
	Listen, Pool           []string
	MaxConnections         int
	Idle, Drain, DeadAfter time.Duration
	Metrics                string
}

const off = "off"

func (c *listening) declare(fs *pflag.FlagSet) {
	fs.StringArrayVar(&c.Listen, "listen", nil, "lead this local address to the pool: HOST:PORT or unix:PATH; who reaches it reaches the pool; repeatable")
	fs.StringArrayVar(&c.Pool, "pool", nil, "the pool, in place of the argument; repeatable, for the --listen in the same place")
	fs.IntVar(&c.MaxConnections, "max-connections", 1000, "with --listen, connections at a time for each address; others wait")
	fs.DurationVar(&c.Idle, "idle", time.Hour, "with --listen, time for which a connection may carry nothing before it is reset; 0 for ever")
	fs.DurationVar(&c.Drain, "drain", 10*time.Second, "with --listen, time at the end for connections to finish")
	fs.DurationVar(&c.DeadAfter, "dead-after", 15*time.Second, "with --listen, time after which a TCP peer whose host is silent counts as lost; 0 leaves that to the system")
	fs.StringVar(&c.Metrics, "metrics", off, "with --listen, HOST:PORT to serve metrics at, path /metrics, or off")
}

// validate names everything that is wrong.
func (c *listening) validate() error {
	var errs []error
	for _, address := range c.Listen {
		if err := forward.CheckAddress(address); err != nil {
			errs = append(errs, fmt.Errorf("listen: %w", err))
		}
	}
	if len(c.Pool) > max(len(c.Listen), 1) {
		errs = append(errs, fmt.Errorf("pool: %d pools for %d addresses to listen at", len(c.Pool), len(c.Listen)))
	}
	if c.Metrics != off {
		_, port, err := net.SplitHostPort(c.Metrics)
		if err == nil {
			_, err = net.LookupPort("tcp", port)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("metrics: %w", err))
		}
	}
	for _, f := range []struct {
		name string
		bad  bool
	}{
		{"max-connections", c.MaxConnections <= 0}, {"idle", c.Idle < 0}, {"drain", c.Drain < 0}, {"dead-after", c.DeadAfter < 0},
	} {
		if f.bad {
			errs = append(errs, fmt.Errorf("%s: too small", f.name))
		}
	}
	return errors.Join(errs...)
}

// pools returns the pool of each address to listen at, or the one to use.
func (c *listening) pools(args []string) ([]param.PoolHandle, error) {
	names := c.Pool
	switch {
	case len(args) > 0 && len(names) > 0:
		return nil, errors.New("pool: give the argument or --pool, not both")
	case len(args) > 0:
		names = args
	case len(names) == 0:
		return nil, errors.New("pool: which pool? Give it as the argument or with --pool")
	}
	var pools []param.PoolHandle
	for _, name := range names {
		pools = append(pools, param.PoolHandle(name))
	}
	if n := max(len(c.Listen), 1); len(pools) != n && len(pools) != 1 {
		return nil, fmt.Errorf("pool: %d pools for %d addresses; give one for each, or one for all", len(pools), n)
	}
	for len(pools) < len(c.Listen) {
		pools = append(pools, pools[0])
	}
	return pools, nil
}

// forward leads each address to its pool until ctx ends.
func (c *settings) forward(ctx context.Context, pools []param.PoolHandle, resolver *pooluser.Resolver, log *logrus.Logger) (err error) {
	var listeners []net.Listener
	defer func() {
		for _, l := range listeners {
			_ = l.Close() // closed already, unless something failed
		}
	}()
	forwarders := forwarders{}
	for i, address := range c.Listen {
		f, err := forward.New(forward.Config{
			Pool: pools[i], Key: c.Key, MaxConnections: c.MaxConnections, ConnectTimeout: c.Timeout,
			Idle: orNone(c.Idle), Drain: orNone(c.Drain), Log: log,
		}, resolver)
		if err != nil {
			return err
		}
		l, err := forward.Listen(ctx, address, c.DeadAfter)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		listeners = append(listeners, l)
		forwarders.add(pools[i], f)
		log.WithFields(logrus.Fields{"listen": l.Addr().String(), "pool": string(pools[i])}).Info("listening")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var work sync.WaitGroup
	defer work.Wait()
	serving, end := context.WithCancel(context.WithoutCancel(ctx)) // metrics, while connections finish too
	defer end()
	if c.Metrics != off {
		l, err := net.Listen("tcp", c.Metrics)
		if err != nil {
			return fmt.Errorf("metrics: %w", err)
		}
		log.WithField("metrics", "http://"+l.Addr().String()+"/metrics").Info("listening")
		work.Go(func() { serveMetrics(serving, l, forwarders, log) })
	}
	work.Go(func() { systemd.Watchdog(serving, log, func() {}) })
	told := context.AfterFunc(ctx, func() {
		systemd.Notify(log, systemd.Stopping+"\n"+systemd.Extend(c.Drain+10*time.Second))
	})
	defer told()
	systemd.Notify(log, systemd.Ready)
	var carrying sync.WaitGroup
	for i, l := range listeners {
		carrying.Go(func() {
			if err := forwarders.list[i].Serve(ctx, l); err != nil {
				cancel(fmt.Errorf("listen at %v: %w", l.Addr(), err))
			}
		})
	}
	carrying.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, cli.ErrSignal) && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// orNone lets 0 stand for none, which is negative in libraries.
func orNone(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// forwarders are the metrics of all that is forwarded, by pool.
type forwarders struct {
	list  []*forward.Forwarder
	pools []string
}

func (fs *forwarders) add(pool param.PoolHandle, f *forward.Forwarder) {
	fs.list = append(fs.list, f)
	fs.pools = append(fs.pools, string(pool))
}

// The names of metrics are interface.
var (
	sessions    = prometheus.NewDesc("rserpool_proxy_sessions", "Connections carried to the pool now.", []string{"pool"}, nil)
	connections = prometheus.NewDesc("rserpool_proxy_connections_total", "Connections that ended, by how.", []string{"pool", "result"}, nil)
	failovers   = prometheus.NewDesc("rserpool_proxy_failovers_total", "Elements that failed: replaced before the client noticed, or lost with its connection.", []string{"pool", "result"}, nil)
	octets      = prometheus.NewDesc("rserpool_proxy_bytes_total", "Octets carried.", []string{"pool", "direction"}, nil)
	waits       = prometheus.NewDesc("rserpool_proxy_full_total", "Times that all connections allowed were in use.", []string{"pool"}, nil)
)

// Describe is prometheus.Collector's.
func (fs forwarders) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sessions, connections, failovers, octets, waits} {
		to <- d
	}
}

// Collect is prometheus.Collector's. Addresses that lead to the same pool count
// together.
func (fs forwarders) Collect(to chan<- prometheus.Metric) {
	sums := map[string]forward.Stats{}
	for i, f := range fs.list {
		sums[fs.pools[i]] = sums[fs.pools[i]].Plus(f.Stats())
	}
	for pool, s := range sums {
		count := func(d *prometheus.Desc, n uint64, labels ...string) {
			to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), append([]string{pool}, labels...)...)
		}
		to <- prometheus.MustNewConstMetric(sessions, prometheus.GaugeValue, float64(s.Active), pool)
		count(connections, s.Ended, "ended")
		count(connections, s.Refused, "no-element")
		count(connections, s.ElementLost, "element-lost")
		count(connections, s.ClientLost, "client-lost")
		count(connections, s.Idle, "idle")
		count(connections, s.Stopped, "stopped")
		count(failovers, s.Replaced, "replaced")
		count(failovers, s.ElementLost, "lost")
		count(octets, s.FromClients, "to-element")
		count(octets, s.ToClients, "to-client")
		count(waits, s.Full)
	}
}

// serveMetrics serves until ctx ends.
func serveMetrics(ctx context.Context, l net.Listener, fs forwarders, log logrus.FieldLogger) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(fs)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		log.WithError(err).Warn("metrics are not served any more")
	}
}
