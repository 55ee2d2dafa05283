package paramtest

import (
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Packet is what tshark found in one message.
type Packet struct {
	// Fields are the values of each field as shown, in the order of the octets.
	Fields map[string][]string
	// Malformed: tshark could not make sense of the message.
	Malformed bool
	// Comments are tshark's remarks of the level warning or error.
	Comments []string
}

type node struct {
	Name   string `xml:"name,attr"`
	Show   string `xml:"show,attr"`
	Value  string `xml:"value,attr"`
	Nodes  []node `xml:"field"`
	Protos []node `xml:"proto"`
}

// Tshark shows that tshark finds in each message what is expected of it.
func Tshark[M Encoder](t *testing.T, ppid uint32, messages []M, expected func(M) *Expectation) {
	var encoded [][]byte
	for _, m := range messages {
		encoded = append(encoded, MustEncode(t, m))
	}
	for i, p := range Dissect(t, ppid, encoded) {
		t.Run(fmt.Sprintf("%d %T", i, messages[i]), func(t *testing.T) {
			expected(messages[i]).Check(t, p)
		})
	}
}

// Dissect has Wireshark's tshark read the messages, as a second opinion on what
// they say, each as the payload of one SCTP DATA
// chunk with the payload protocol identifier, and returns what it found in each.
// Of fields whose form depends on the tshark version (rational numbers), the
// value is the octets in hexadecimal. Without tshark the test is skipped.
func Dissect(tb testing.TB, ppid uint32, messages [][]byte) []Packet {
	tb.Helper()
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		tb.Skip("tshark is not installed (apt-get install -y tshark): nobody else has read our messages")
	}
	file := filepath.Join(tb.TempDir(), "messages.pcap")
	if err := os.WriteFile(file, capture(ppid, messages), 0o600); err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(tshark, "-r", file, "-T", "pdml")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("tshark: %v\n%s", err, stderr.String())
	}
	var doc struct {
		Packets []node `xml:"packet"`
	}
	if err := xml.Unmarshal(out, &doc); err != nil {
		tb.Fatalf("tshark's output: %v", err)
	}
	if len(doc.Packets) != len(messages) {
		tb.Fatalf("tshark found %d packets in %d", len(doc.Packets), len(messages))
	}
	packets := make([]Packet, len(messages))
	for i, p := range doc.Packets {
		packets[i].Fields = make(map[string][]string)
		for _, proto := range p.Protos {
			packets[i].add(proto)
		}
	}
	return packets
}

func (p *Packet) add(n node) {
	if n.Name == "_ws.malformed" {
		p.Malformed = true
	}
	if n.Name == "_ws.expert.message" {
		p.Comments = append(p.Comments, n.Show)
	}
	if n.Name != "" {
		v := n.Show
		if strings.Contains(n.Name, "_load") || strings.Contains(n.Name, "_degradation") {
			v = n.Value
		}
		p.Fields[n.Name] = append(p.Fields[n.Name], v)
	}
	for _, c := range n.Nodes {
		p.add(c)
	}
}

// capture returns a capture file of raw IPv4 packets, one per message.
func capture(ppid uint32, messages [][]byte) []byte {
	le := binary.LittleEndian
	// Version 2.4, link type 101: raw IP.
	b := le.AppendUint32(nil, 0xa1b2c3d4)
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...)
	b = le.AppendUint32(b, 0x40000)
	b = le.AppendUint32(b, 101)
	for i, m := range messages {
		p := packet(ppid, uint32(i), m)
		b = le.AppendUint32(b, uint32(i)) // seconds
		b = le.AppendUint32(b, 0)
		b = le.AppendUint32(b, uint32(len(p)))
		b = le.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	return b
}

func packet(ppid, tsn uint32, message []byte) []byte {
	const ipHeader, sctpHeader, chunkHeader = 20, 12, 16
	total := ipHeader + sctpHeader + chunkHeader + len(message)
	if total > 65535 || len(message)%4 != 0 {
		panic(fmt.Sprintf("message of %d octets", len(message)))
	}
	be := binary.BigEndian
	p := []byte{0x45, 0}
	p = be.AppendUint16(p, uint16(total))
	p = append(p, 0, 0, 0, 0, 64, 132, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2)
	// SCTP: ports that tell nothing, so that the payload protocol identifier
	// decides; tag; no checksum.
	p = be.AppendUint16(p, 40000)
	p = be.AppendUint16(p, 40001)
	p = append(p, 0, 0, 0, 1, 0, 0, 0, 0)
	// DATA, unfragmented.
	p = append(p, 0, 3)
	p = be.AppendUint16(p, uint16(chunkHeader+len(message)))
	p = be.AppendUint32(p, tsn)
	p = append(p, 0, 0, 0, 0)
	p = be.AppendUint32(p, ppid)
	return append(p, message...)
}
