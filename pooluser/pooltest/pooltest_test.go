package pooltest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers each line with it.
func echo(_ context.Context, conn net.Conn) { _, _ = io.Copy(conn, conn) }

func ask(conn net.Conn, line string) (string, error) {
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return "", err
	}
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return "", err
	}
	return bufio.NewReader(conn).ReadString('\n')
}

func TestKill(t *testing.T) {
	Run(t, func(t *testing.T, w *World) {
		w.Registrar("r1")
		w.Server("e1", "echo", echo)
		w.Server("e2", "echo", echo)
		user := w.User("u1")
		w.Settle()
		conn, err := user.Dial(t.Context(), "echo")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ask(conn, "hello"); got != "hello\n" || err != nil {
			t.Errorf("answer %q, %v", got, err)
		}
		first := w.Who(conn.Element.ID)
		w.Kill(first)
		if got, err := ask(conn, "hello"); err == nil {
			t.Errorf("the dead answer %q", got)
		}
		if err := conn.Failed(t.Context()); err != nil {
			t.Error(err)
		}
		if conn, err = user.Dial(t.Context(), "echo"); err != nil {
			t.Fatal(err)
		}
		if second := w.Who(conn.Element.ID); second == first || second == "" {
			t.Errorf("after %q died, %q", first, second)
		}
		if got, err := ask(conn, "hello"); got != "hello\n" || err != nil {
			t.Errorf("answer %q, %v", got, err)
		}
	})
}
