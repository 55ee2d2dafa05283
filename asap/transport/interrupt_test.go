package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func TestInterrupter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		in := NewInterrupter(a.SetReadDeadline)
		read := func(ctx context.Context) error {
			if err := in.Arm(ctx); err != nil {
				return err
			}
			_, err := a.Read(make([]byte, 1))
			return in.Cause(ctx, err)
		}
		cause := errors.New("because")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		for range 2 {
			if err := read(ctx); err != cause {
				t.Errorf("read under a context that ends: %v, want its cause", err)
			}
		}
		go func() { _, _ = b.Write([]byte("x")) }()
		if err := read(t.Context()); err != nil {
			t.Errorf("read with another context: %v", err)
		}
		short, cancelShort := context.WithTimeout(t.Context(), time.Minute)
		defer cancelShort()
		if err := read(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("read past the context's deadline: %v", err)
		}
		go func() { _, _ = b.Write([]byte("x")) }()
		if err := read(context.Background()); err != nil {
			t.Errorf("read without limit: %v", err)
		}
		in.Release()
		b.Close()
		if err := read(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("read after Release: %v", err)
		}
	})
}

func TestInterrupterKeepsTheWatch(t *testing.T) {
	in := NewInterrupter(func(time.Time) error { return nil })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := in.Arm(ctx); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _ = in.Arm(ctx) }); n != 0 {
		t.Errorf("the same context again costs %v allocations", n)
	}
	if err := in.Cause(ctx, os.ErrDeadlineExceeded); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a deadline that the context did not set became %v", err)
	}
}

func TestEventQueueDropsTheOldest(t *testing.T) {
	q := NewEventQueue()
	for i := range eventBuffer + 3 {
		q.Put(Event{Type: EventType(i)})
	}
	for i := range eventBuffer {
		if e := <-q.C(); int(e.Type) != i+3 {
			t.Fatalf("event %d is number %d, want %d", i, e.Type, i+3)
		}
	}
}
