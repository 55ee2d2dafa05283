package main

import (
	"net"
	"sync"

	"github.com/jackc/pgx/v5/pgproto3"
)

// server speaks as much of PostgreSQL's protocol as a client needs that asks one
// question: it answers every query with its name.
type server struct {
	name     string
	listener net.Listener
	work     sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

func newServer(name string) (*server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{name: name, listener: listener}
	s.work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, conn)
			s.mu.Unlock()
			s.work.Go(func() {
				defer conn.Close()
				_ = s.serve(conn) // ends when the client does
			})
		}
	})
	return s, nil
}

// stop is the server's death.
func (s *server) stop() {
	_ = s.listener.Close()
	s.mu.Lock()
	for _, conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.work.Wait()
}

func (s *server) serve(conn net.Conn) error {
	backend := pgproto3.NewBackend(conn, conn)
	if _, err := backend.ReceiveStartupMessage(); err != nil {
		return err
	}
	backend.Send(&pgproto3.AuthenticationOk{})
	backend.Send(&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"})
	backend.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
	ready := &pgproto3.ReadyForQuery{TxStatus: 'I'}
	backend.Send(ready)
	for {
		if err := backend.Flush(); err != nil {
			return err
		}
		msg, err := backend.Receive()
		if err != nil {
			return err
		}
		query, ok := msg.(*pgproto3.Query)
		switch {
		case !ok: // it says goodbye
			return nil
		case query.String == "-- ping":
			backend.Send(&pgproto3.EmptyQueryResponse{})
		default:
			const text = 25 // the type's number
			backend.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("name"), DataTypeOID: text, DataTypeSize: -1, TypeModifier: -1}}})
			backend.Send(&pgproto3.DataRow{Values: [][]byte{[]byte(s.name)}})
			backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
		}
		backend.Send(ready)
	}
}
