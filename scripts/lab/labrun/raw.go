package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"rserpool/asap/transport"
	"rserpool/asap/transport/sctp"
)

// answerTime is how long sendRaw waits for an answer to each message.
const answerTime = 300 * time.Millisecond

// sendRaw sends each message to the first registrar over an association of its
// own and prints the answers.
func sendRaw(protocol string, messages []string) error {
	to, ppid := pr1.asap(), transport.PPIDASAP
	if protocol == "enrp" {
		to, ppid = pr1.enrp(), transport.PPIDENRP
	}
	remote, err := netip.ParseAddrPort(to)
	if err != nil {
		return err
	}
	for _, text := range messages {
		data, err := hex.DecodeString(text)
		if err != nil {
			return fmt.Errorf("message %q: %w", text, err)
		}
		if err := sendOne(remote, transport.Message{Data: data, PPID: ppid}); err != nil {
			return fmt.Errorf("message %s: %w", text, err)
		}
	}
	return nil
}

func sendOne(remote netip.AddrPort, m transport.Message) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := sctp.New().Dial(ctx, nil, []netip.AddrPort{remote}, transport.Options{})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Send(ctx, m); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	buf := make([]byte, transport.MaxMessage)
	for {
		answer, err := conn.Receive(waiting, buf)
		if err != nil {
			fmt.Printf("%x: %v\n", m.Data, err)
			return nil // silence or an abort is an answer, too
		}
		fmt.Printf("%x: %x\n", m.Data, answer.Data)
	}
}
