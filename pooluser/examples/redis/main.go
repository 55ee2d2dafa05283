// Redis reads a key, again and again, from a pool of Redis servers by the go-redis
// client, which knows nothing of pools but that it is told how to connect.
//
//	go run ./redis -registrar 192.0.2.1 -pool cache -key greeting -times 100
//
// Kill the server that it reads from, and it goes on with another one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/redis/go-redis/v9"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
	"rserpool/pooluser"
)

func main() {
	registrar := flag.String("registrar", "127.0.0.1", "address of a registrar")
	pool := flag.String("pool", "cache", "pool handle")
	key := flag.String("key", "greeting", "key to read")
	times := flag.Int("times", 10, "how often to read it, each 100 ms")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	at, err := transport.ParseEndpoint(*registrar, transport.TCP, asap.Port)
	if err != nil {
		log.Fatal(err)
	}
	resolver, err := pooluser.New(pooluser.Config{Registrars: []transport.Endpoint{at}, Networks: transport.NewNetworks(tcp.New())})
	if err != nil {
		log.Fatal(err)
	}
	resolver.Start()
	defer resolver.Stop()
	client := newClient(resolver, param.PoolHandle(*pool))
	defer client.Close()
	read(ctx, client, *key, *times, 100*time.Millisecond, os.Stdout)
}

// newClient returns a client of the pool.
func newClient(resolver *pooluser.Resolver, pool param.PoolHandle) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr:   pooluser.Host(pool),
		Dialer: resolver.DialContext,
		// Connections stay where they are: a bounded life lets them follow the pool.
		ConnMaxLifetime: time.Minute,
		// A reading command is repeated on a new connection, so by another server.
		MaxRetries: 3,
		// The resolver tries several servers by itself.
		DialerRetries: 1,
	})
}

// read reads the key and writes what comes.
func read(ctx context.Context, client *redis.Client, key string, times int, pause time.Duration, out io.Writer) {
	for i := range times {
		value, err := client.Get(ctx, key).Result()
		switch {
		case errors.Is(err, redis.Nil):
			value = "(nothing)"
		case err != nil:
			value = "error: " + err.Error()
		}
		fmt.Fprintln(out, value)
		if i == times-1 {
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}
