// Postgres asks a pool of PostgreSQL servers a question, again and again, by
// database/sql and the pgx driver, which know nothing of pools but that the driver is
// told how to connect.
//
//	go run ./postgres -registrar 192.0.2.1 -database 'user=reader dbname=shop' -pool db -times 100
//
// Kill the server that answers, and another one does.
package main

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
	"rserpool/pooluser"
)

func main() {
	registrar := flag.String("registrar", "127.0.0.1", "address of a registrar")
	pool := flag.String("pool", "db", "pool handle")
	database := flag.String("database", "", "user, database and the like, as in a connection string; no host")
	query := flag.String("query", "select inet_server_port()::text", "question with one answer")
	times := flag.Int("times", 10, "how often to ask it, each 100 ms")
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
	db, err := open(resolver, param.PoolHandle(*pool), *database)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	ask(ctx, db, *query, *times, 100*time.Millisecond, os.Stdout)
}

// open returns a database that is a pool.
func open(resolver *pooluser.Resolver, pool param.PoolHandle, database string) (*sql.DB, error) {
	cfg, err := pgx.ParseConfig(database + " host=" + pooluser.Host(pool))
	if err != nil {
		return nil, err
	}
	cfg.DialFunc = resolver.DialContext
	// The name is not one of DNS: it goes to DialFunc as it is.
	cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	db := stdlib.OpenDB(*cfg)
	// Connections stay where they are: a bounded life lets them follow the pool.
	db.SetConnMaxLifetime(time.Minute)
	return db, nil
}

// ask asks the question and writes the answers. database/sql repeats by itself what
// has not reached a server.
func ask(ctx context.Context, db *sql.DB, query string, times int, pause time.Duration, out io.Writer) {
	for i := range times {
		var answer string
		if err := db.QueryRowContext(ctx, query).Scan(&answer); err != nil {
			answer = "error: " + err.Error()
		}
		fmt.Fprintln(out, answer)
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
