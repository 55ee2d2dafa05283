package pooltest_test

import (
	"context"
	"io"
	"net"
	"testing"

	"rserpool/pooluser/pooltest"
)

// A plain TCP server dies, and its client goes on with another. TestExample runs it.
func ExampleRun() {
	serve := func(_ context.Context, conn net.Conn) { _, _ = io.Copy(conn, conn) }

	testFailover = func(t *testing.T) { // in your file of tests: func TestFailover(t *testing.T)
		pooltest.Run(t, func(t *testing.T, w *pooltest.World) {
			w.Registrar("r1")
			w.Server("e1", "echo", serve)
			w.Server("e2", "echo", serve)
			user := w.User("u1")
			w.Settle()

			conn, err := user.Dial(t.Context(), "echo")
			if err != nil {
				t.Fatal(err)
			}
			first := w.Who(conn.Element.ID)
			w.Kill(first)
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Error("the dead speak")
			}
			if err := conn.Failed(t.Context()); err != nil {
				t.Error(err)
			}
			if conn, err = user.Dial(t.Context(), "echo"); err != nil {
				t.Fatal(err)
			}
			if w.Who(conn.Element.ID) == first {
				t.Error("the dead serve")
			}
		})
	}
}

var testFailover func(*testing.T)

func TestExample(t *testing.T) {
	ExampleRun()
	testFailover(t)
}
