// Ringbench measures how fast a group of processes orders messages.
//
//	ringbench member --id 1 --listen tcp://10.0.0.1:7700 \
//	        --peers tcp://10.0.0.2:7700,tcp://10.0.0.3:7700 --members 3 \
//	        --payload 100 --send max --seconds 5
//
// is one process and one member. It waits until the group has so many members,
// prints 'ready', sends when a line comes on its standard input, prints what it
// measured as JSON, and leaves at the end of its input (--alone: starts by itself
// and leaves when it is done).
//
//	ringbench run --members 3,5,7 --runs 5 --seconds 3
//
// makes network namespaces on a bridge (loopback when it is not root), starts
// members there, and prints tables: throughput, latency of one message at a time,
// and latency over offered load. Medians of all runs.
//
// Other systems are measured side by side, in turns: --rival 'corosync=COMMAND'
// starts COMMAND in each namespace with the flags of 'member' behind it. It has to
// do what 'member' does and print the same JSON (see result), with the CPU time of
// its daemon included.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "ringbench:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "member":
			return member(ctx, args[1:])
		case "run":
			return run(ctx, args[1:])
		}
	}
	return errors.New("usage: ringbench member|run [flags]; see ringbench member --help")
}
