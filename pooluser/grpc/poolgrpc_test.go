package poolgrpc_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"rserpool/asap/param"
	"rserpool/pooluser"
	poolgrpc "rserpool/pooluser/grpc"
	"rserpool/pooluser/internal/localpool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is an element: gRPC's health service. It puts its identifier into the header.
type server struct {
	*grpc.Server
	id       param.PEID
	address  string
	conns    atomic.Int32
	calls    atomic.Int32
	dropping atomic.Bool // calls are not answered, and the server dies of them
	failing  atomic.Bool // calls fail at once
	served   chan struct{}
}

// Stop returns when nobody listens any more, also if the server has not yet begun.
func (s *server) Stop() {
	s.Server.Stop()
	<-s.served
}

// counted counts connections.
type counted struct {
	net.Listener
	conns *atomic.Int32
}

func (c counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.conns.Add(1)
	}
	return conn, err
}

func newServer(t *testing.T, id param.PEID, address string) *server {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{id: id, address: listener.Addr().String(), served: make(chan struct{})}
	s.Server = grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		s.calls.Add(1)
		if s.dropping.Load() {
			go s.Stop()
			<-ctx.Done()
			return nil, ctx.Err()
		}
		if s.failing.Load() {
			return nil, status.Error(codes.Internal, "failing")
		}
		if err := grpc.SetHeader(ctx, metadata.Pairs("element", fmt.Sprint(uint32(s.id)))); err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}))
	healthpb.RegisterHealthServer(s.Server, health.NewServer())
	go func() {
		defer close(s.served)
		_ = s.Serve(counted{listener, &s.conns})
	}()
	t.Cleanup(s.Stop)
	return s
}

// world is a pool with a registrar and a client.
type world struct {
	t         *testing.T
	registrar *localpool.Registrar
	client    healthpb.HealthClient
	conn      *grpc.ClientConn
	servers   map[param.PEID]*server
}

const pool = param.PoolHandle("echo")

func newWorld(t *testing.T, policy param.PolicyType, servers int, more ...grpc.DialOption) *world {
	t.Helper()
	w := &world{t: t, registrar: localpool.Start(t), servers: map[param.PEID]*server{}}
	var ids []param.PEID
	for i := range servers {
		id := param.PEID(i + 1)
		w.servers[id] = newServer(t, id, "127.0.0.1:0")
		ids = append(ids, id)
	}
	w.setPool(policy, ids...)
	w.dial("rserpool:///echo", more...)
	return w
}

func (w *world) dial(target string, more ...grpc.DialOption) {
	w.t.Helper()
	options := append(poolgrpc.DialOptions(w.registrar.User(w.t)), grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient(target, append(options, more...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	w.conn, w.client = conn, healthpb.NewHealthClient(conn)
}

func (w *world) setPool(policy param.PolicyType, ids ...param.PEID) {
	var elements []param.PoolElement
	for _, id := range ids {
		e := localpool.Element(id, w.servers[id].address)
		e.Policy = param.Policy{Type: policy, Priority: 100 - uint32(id)}
		elements = append(elements, e)
	}
	w.registrar.Set(pool, policy, elements...)
}

// call asks for the health and returns who answered.
func (w *world) call(ctx context.Context, options ...grpc.CallOption) (param.PEID, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var header metadata.MD
	res, err := w.client.Check(ctx, &healthpb.HealthCheckRequest{}, append(options, grpc.Header(&header))...)
	if err != nil && len(header) > 0 {
		return 0, &cutOff{err}
	}
	if err != nil {
		return 0, err
	}
	if res.Status != healthpb.HealthCheckResponse_SERVING {
		w.t.Errorf("answer %v", res)
	}
	var id uint32
	if _, err := fmt.Sscan(strings.Join(header.Get("element"), ""), &id); err != nil {
		w.t.Error(err)
	}
	return param.PEID(id), nil
}

// cutOff is the error of an answer that had begun. gRPC asks nobody else then.
type cutOff struct{ error }

func (e *cutOff) Unwrap() error { return e.error }

func (w *world) want(id param.PEID) {
	w.t.Helper()
	if got, err := w.call(w.t.Context()); err != nil || got != id {
		w.t.Errorf("answer from %v, %v; want %v", got, err, id)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute still not: %s", what)
		}
	}
}

func (w *world) wantReported(ids ...param.PEID) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%v reported", ids), func() bool { return slices.Equal(w.registrar.Reports(), ids) })
}

func TestCallsTakeTurnsInARoundRobinPool(t *testing.T) {
	w := newWorld(t, param.RoundRobin, 3)
	seen := map[param.PEID]int{}
	eventually(t, "all are connected", func() bool {
		id, err := w.call(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen[id]++
		return len(seen) == 3
	})
	clear(seen)
	for range 30 {
		id, err := w.call(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen[id]++
	}
	if len(seen) != 3 || slices.Max(slices.Collect(maps.Values(seen))) > 12 {
		t.Errorf("calls %v, want turns", seen)
	}
	for id, s := range w.servers {
		if n := s.conns.Load(); n != 1 {
			t.Errorf("%d connections to %v, want 1", n, id)
		}
	}
}

func TestHighestPriorityAloneIsConnected(t *testing.T) {
	w := newWorld(t, param.Priority, 3)
	for range 5 {
		w.want(1)
	}
	for id, s := range w.servers {
		if n := s.conns.Load(); (n > 0) != (id == 1) {
			t.Errorf("%d connections to %v", n, id)
		}
	}
}

func TestKeysSelectElements(t *testing.T) {
	w := newWorld(t, param.RendezvousHashing, 4)
	home := map[string]param.PEID{}
	for i := range 60 {
		key := fmt.Sprint("customer", i%12)
		id, err := w.call(pooluser.WithKey(t.Context(), key))
		if err != nil {
			t.Fatal(err)
		}
		if was := home[key]; was != 0 && was != id {
			t.Errorf("%s went to %v and %v", key, was, id)
		}
		home[key] = id
	}
	if elements := slices.Compact(slices.Sorted(maps.Values(home))); len(elements) < 2 {
		t.Errorf("all keys at %v", elements)
	}
}

func TestDeadElementIsReportedAndPassedOver(t *testing.T) {
	w := newWorld(t, param.Priority, 2)
	w.want(1)
	w.servers[1].Stop()
	eventually(t, "the death is noticed", func() bool {
		id, err := w.call(t.Context())
		return err == nil && id == 2
	})
	for range 5 {
		w.want(2)
	}
	w.wantReported(1)
	t.Run("AndUsedAgainWhenItIsBack", func(t *testing.T) {
		w.servers[1] = newServer(t, 1, w.servers[1].address)
		eventually(t, "calls at 1 again", func() bool {
			id, err := w.call(t.Context())
			return err == nil && id == 1
		})
	})
}

func TestElementsThatAreDeadAtTheStart(t *testing.T) {
	w := newWorld(t, param.RoundRobin, 3)
	w.servers[1].Stop()
	w.servers[2].Stop()
	for range 6 {
		w.want(3)
	}
	w.wantReported(1, 2)
}

const retrying = `{"loadBalancingConfig": [{"rserpool": {}}], "methodConfig": [{"name": [{}], "retryPolicy": {
	"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.1s", "backoffMultiplier": 2,
	"retryableStatusCodes": ["UNAVAILABLE"]}}]}`

func TestDeathAmidACall(t *testing.T) {
	t.Run("IsTheCallersByDefault", func(t *testing.T) {
		w := newWorld(t, param.Priority, 2)
		w.servers[1].dropping.Store(true)
		if id, err := w.call(t.Context()); status.Code(err) != codes.Unavailable {
			t.Errorf("answer from %v, %v; want Unavailable", id, err)
		}
		if n := w.servers[2].calls.Load(); n != 0 {
			t.Errorf("%d calls at the second element", n)
		}
		w.want(2)
		w.wantReported(1)
	})
	t.Run("IsRetriedElsewhereWithAPolicy", func(t *testing.T) {
		w := newWorld(t, param.Priority, 2, grpc.WithDefaultServiceConfig(retrying))
		w.servers[1].dropping.Store(true)
		w.want(2)
		w.wantReported(1)
	})
}

func TestNewElementsAreUsedSoon(t *testing.T) {
	w := newWorld(t, param.Priority, 1)
	w.want(1)
	w.servers[2] = newServer(t, 2, "127.0.0.1:0")
	w.setPool(param.Priority, 2)
	w.servers[1].Stop() // its loss makes gRPC ask again
	eventually(t, "calls at 2", func() bool {
		id, err := w.call(t.Context())
		return err == nil && id == 2
	})
}

func TestAnotherPolicy(t *testing.T) {
	w := newWorld(t, param.RoundRobin, 2)
	for range 4 {
		if _, err := w.call(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.servers[3] = newServer(t, 3, "127.0.0.1:0")
	w.setPool(param.Priority, 3, 2)
	w.servers[1].Stop()
	eventually(t, "priorities in force", func() bool {
		for range 5 {
			if id, err := w.call(t.Context()); err != nil || id != 2 {
				return false
			}
		}
		return true
	})
}

func TestUnknownPoolsFailAtOnceOrWait(t *testing.T) {
	w := newWorld(t, param.RoundRobin, 1)
	w.registrar.Set(pool, param.RoundRobin)
	start := time.Now()
	if _, err := w.call(t.Context()); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "unknown pool") {
		t.Errorf("error %v, want Unavailable for an unknown pool", err)
	}
	took := time.Since(start)
	t.Logf("unknown after %v", took)
	if took > 10*time.Second { // a call has a minute
		t.Errorf("after %v", took)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := w.call(t.Context(), grpc.WaitForReady(true))
		waited <- err
	}()
	w.setPool(param.RoundRobin, 1)
	if err := <-waited; err != nil {
		t.Errorf("waiting call: %v", err)
	}
}

func TestAllElementsDead(t *testing.T) {
	w := newWorld(t, param.RoundRobin, 2)
	w.servers[1].Stop()
	w.servers[2].Stop()
	if _, err := w.call(t.Context()); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "refused") {
		t.Errorf("error %v, want Unavailable, refused", err)
	}
}

func TestLastKnownElementsServeWithoutRegistrar(t *testing.T) {
	w := newWorld(t, param.Priority, 2)
	w.want(1)
	w.registrar.Stop()
	w.servers[1].Stop()
	eventually(t, "calls at 2", func() bool {
		id, err := w.call(t.Context())
		return err == nil && id == 2
	})
}

func TestNames(t *testing.T) {
	odd := param.PoolHandle("my pool/ä:80")
	w := newWorld(t, param.RoundRobin, 1)
	w.registrar.Set(odd, param.RoundRobin, localpool.Element(1, w.servers[1].address))
	w.dial("rserpool:///my%20pool%2F%C3%A4:80")
	w.want(1)
	for _, bad := range []string{"rserpool:///", "rserpool://host/pool"} {
		w.dial(bad)
		if _, err := w.call(t.Context()); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// An element that is listed twice, or that nobody can connect to, changes nothing.
func TestOddAnswers(t *testing.T) {
	w := newWorld(t, param.RoundRobin, 1)
	e := localpool.Element(1, w.servers[1].address)
	opaque := param.PoolElement{ID: 7, Life: 300, Policy: param.Policy{Type: param.RoundRobin}, User: param.Transport{Type: param.TypeOpaqueTransport, Opaque: []byte("data")}}
	w.registrar.Set(pool, param.RoundRobin, opaque, e, e)
	for range 4 {
		w.want(1)
	}
	w.registrar.Set("opaque", param.RoundRobin, opaque)
	w.dial("rserpool:///opaque")
	if _, err := w.call(t.Context()); status.Code(err) != codes.Unavailable {
		t.Errorf("error %v, want Unavailable", err)
	}
}

// To a policy that goes by response times an element that fails fast is not a fast one.
func TestFailuresAreNoAnswers(t *testing.T) {
	for end := time.Now().Add(time.Minute); ; {
		w := newWorld(t, param.PeakEWMA, 2)
		w.servers[1].failing.Store(true)
		var longest time.Duration
		for range 50 {
			start := time.Now()
			if _, err := w.call(t.Context()); err != nil && status.Code(err) != codes.Internal {
				t.Fatal(err)
			}
			longest = max(longest, time.Since(start))
		}
		n := w.servers[1].calls.Load()
		if n <= 2 {
			return
		}
		// A failure counts as a second: who takes as long is no better.
		if longest < time.Second || time.Now().After(end) {
			t.Fatalf("the element that fails got %d of 50 calls, of which the longest took %v", n, longest)
		}
	}
}

func TestConnectWithoutACall(t *testing.T) {
	w := newWorld(t, param.Priority, 3)
	w.conn.Connect()
	eventually(t, "one connection", func() bool { return w.servers[1].conns.Load() == 1 })
	w.want(1)
	if a, b := w.servers[2].conns.Load(), w.servers[3].conns.Load(); a+b != 0 {
		t.Errorf("%d connections to standbys", a+b)
	}
}

func TestOptionsServeSeveralConnections(t *testing.T) {
	w := newWorld(t, param.RoundRobin, 1)
	options := append(poolgrpc.DialOptions(w.registrar.User(t)), grpc.WithTransportCredentials(insecure.NewCredentials()))
	var conns []*grpc.ClientConn
	for range 2 {
		conn, err := grpc.NewClient("rserpool:///echo", options...)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
		w.client = healthpb.NewHealthClient(conn)
		w.want(1)
	}
	if err := conns[0].Close(); err != nil {
		t.Error(err)
	}
	w.servers[1].Stop()
	w.servers[1] = newServer(t, 1, w.servers[1].address)
	eventually(t, "the other one connects again", func() bool {
		_, err := w.call(t.Context())
		return err == nil
	})
	if _, err := healthpb.NewHealthClient(conns[0]).Check(t.Context(), &healthpb.HealthCheckRequest{}); status.Code(err) != codes.Canceled {
		t.Errorf("closed connection: %v", err)
	}
}

// Workers call a pool of three servers, which die one after the other and come back. Who
// dies amid an answer cuts it off, for one worker each at most.
func TestNoCallFailsWhileServersComeAndGo(t *testing.T) {
	w := newWorld(t, param.RoundRobin, 3, grpc.WithDefaultServiceConfig(retrying))
	ctx, cancel := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	var answers, cut atomic.Int32
	for range 8 {
		workers.Go(func() {
			for ctx.Err() == nil {
				var half *cutOff
				switch _, err := w.call(t.Context()); {
				case errors.As(err, &half):
					cut.Add(1)
				case err != nil:
					t.Error(err)
				}
				answers.Add(1)
			}
		})
	}
	for round := range 3 {
		id := param.PEID(round%3 + 1)
		before := answers.Load()
		w.servers[id].Stop()
		eventually(t, "calls go on", func() bool { return answers.Load() > before+200 })
		again := newServer(t, id, w.servers[id].address)
		w.servers[id] = again
		eventually(t, "the server is used again", func() bool { return again.calls.Load() > 0 })
	}
	cancel()
	workers.Wait()
	t.Logf("%d answers, %d cut off", answers.Load(), cut.Load())
	if n := cut.Load(); n > 3*8 {
		t.Errorf("%d answers were cut off by 3 deaths", n)
	}
}
