// Package scripting is the scripting service of rsplib, as an element: a user uploads
// an archive with a program, the element runs it and the user downloads the result.
//
// It runs what anybody sends who can reach it, with the rights of its own process:
// it belongs into a container or a machine that has nothing else. There is no session
// state: when the element of a job is lost, the user sends the job to another.
//
// Messages are those of rsplib's rspserver and scriptingclient:
//
//	element                         user
//	Ready                      ->
//	                           <-   Environment, if the job has one
//	                           <-   Upload..., empty Upload: the input
//	Environment                ->
//	                           <-   Upload..., empty Upload: the environment, if asked for
//	Status 0: the job begins   ->
//	KeepAlive                 <->   KeepAliveAck
//	Status: its exit code      ->
//	Download..., empty Download ->
package scripting

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// PPID is the payload protocol identifier of scripting messages.
const PPID uint32 = 35

// Pool is the pool handle that rsplib's programs use.
const Pool = "ScriptingPool"

// Bounds of the messages, in octets.
const (
	// MaxData is the longest data of an Upload or a Download.
	MaxData = 16384
	// MaxInfo is the longest text of a Ready or a NotReady.
	MaxInfo = 64
	// HashSize is the size of an environment's name, its SHA-1 sum.
	HashSize = 20
)

// Reasons not to be ready.
const (
	FullyLoaded    uint32 = 1
	OutOfResources uint32 = 2
)

const (
	typeNotReady = iota
	typeReady
	typeUpload
	typeDownload
	typeKeepAlive
	typeKeepAliveAck
	typeStatus
	typeEnvironment
)

const (
	headerSize = 4
	// uploadNeeded is the flag of an Environment from an element without it.
	uploadNeeded = 1
)

// ErrMalformed says that octets are no message of this protocol. It comes wrapped.
var ErrMalformed = errors.New("malformed scripting message")

// Message is one of the types below.
type Message interface {
	// Append appends the encoded message to dst.
	Append(dst []byte) []byte
}

type (
	// NotReady tells that the element takes no job now.
	NotReady struct {
		Reason uint32
		Info   string // the element's name, at most MaxInfo octets
	}
	// Ready tells that the element waits for a job.
	Ready struct {
		Info string // the element's name, at most MaxInfo octets
	}
	// Upload is a part of the input or of the environment; an empty one is its end.
	Upload struct{ Data []byte }
	// Download is a part of the result; an empty one is its end.
	Download struct{ Data []byte }
	// KeepAlive asks the other end for a KeepAliveAck.
	KeepAlive struct{}
	// KeepAliveAck answers a KeepAlive. The status means nothing; rsplib's user
	// leaves it out.
	KeepAliveAck struct{ Status uint32 }
	// Status says that the job begins, by 0, and then by what exit code it ended.
	Status struct{ Code uint32 }
	// Environment asks whether the element has the environment of this SHA-1 sum,
	// and answers that.
	Environment struct {
		Hash         [HashSize]byte
		UploadNeeded bool // in the answer: the element does not have it
	}
)

// Append implements Message. A longer Info is cut.
func (m NotReady) Append(dst []byte) []byte {
	info := m.Info[:min(len(m.Info), MaxInfo)]
	dst = header(dst, typeNotReady, 0, 4+len(info))
	return append(binary.BigEndian.AppendUint32(dst, m.Reason), info...)
}

// Append implements Message. A longer Info is cut.
func (m Ready) Append(dst []byte) []byte {
	info := m.Info[:min(len(m.Info), MaxInfo)]
	return append(header(dst, typeReady, 0, len(info)), info...)
}

// Append implements Message. Data must not be longer than MaxData.
func (m Upload) Append(dst []byte) []byte {
	return append(header(dst, typeUpload, 0, len(m.Data)), m.Data...)
}

// Append implements Message. Data must not be longer than MaxData.
func (m Download) Append(dst []byte) []byte {
	return append(header(dst, typeDownload, 0, len(m.Data)), m.Data...)
}

// Append implements Message.
func (KeepAlive) Append(dst []byte) []byte { return header(dst, typeKeepAlive, 0, 0) }

// Append implements Message.
func (m KeepAliveAck) Append(dst []byte) []byte {
	return binary.BigEndian.AppendUint32(header(dst, typeKeepAliveAck, 0, 4), m.Status)
}

// Append implements Message.
func (m Status) Append(dst []byte) []byte {
	return binary.BigEndian.AppendUint32(header(dst, typeStatus, 0, 4), m.Code)
}

// Append implements Message.
func (m Environment) Append(dst []byte) []byte {
	var flags byte
	if m.UploadNeeded {
		flags = uploadNeeded
	}
	return append(header(dst, typeEnvironment, flags, HashSize), m.Hash[:]...)
}

func header(dst []byte, kind, flags byte, body int) []byte {
	return binary.BigEndian.AppendUint16(append(dst, kind, flags), uint16(headerSize+body))
}

// Parse decodes one message. Data of uploads and downloads lies in b. Errors wrap
// ErrMalformed.
func Parse(b []byte) (Message, error) {
	if len(b) < headerSize {
		return nil, fmt.Errorf("%w: %d octets", ErrMalformed, len(b))
	}
	if n := int(binary.BigEndian.Uint16(b[2:])); n != len(b) {
		return nil, fmt.Errorf("%w: length field %d in %d octets", ErrMalformed, n, len(b))
	}
	kind, flags, body := b[0], b[1], b[headerSize:]
	if int(kind) >= len(bodies) {
		return nil, fmt.Errorf("%w: type %d", ErrMalformed, kind)
	}
	if size := bodies[kind]; len(body) < size.least || len(body) > size.most {
		return nil, fmt.Errorf("%w: %d octets of type %d", ErrMalformed, len(b), kind)
	}
	switch kind {
	case typeNotReady:
		return NotReady{Reason: binary.BigEndian.Uint32(body), Info: string(body[4:])}, nil
	case typeReady:
		return Ready{Info: string(body)}, nil
	case typeUpload:
		return Upload{Data: body}, nil
	case typeDownload:
		return Download{Data: body}, nil
	case typeKeepAlive:
		return KeepAlive{}, nil
	case typeKeepAliveAck:
		if len(body) < 4 {
			return KeepAliveAck{}, nil
		}
		return KeepAliveAck{Status: binary.BigEndian.Uint32(body)}, nil
	case typeStatus:
		return Status{Code: binary.BigEndian.Uint32(body)}, nil
	}
	m := Environment{UploadNeeded: flags&uploadNeeded != 0}
	copy(m.Hash[:], body)
	return m, nil
}

// bodies has the bounds of what follows the header, by type.
var bodies = [...]struct{ least, most int }{
	typeNotReady:     {4, 4 + MaxInfo},
	typeReady:        {0, MaxInfo},
	typeUpload:       {0, MaxData},
	typeDownload:     {0, MaxData},
	typeKeepAlive:    {0, 0},
	typeKeepAliveAck: {0, 4},
	typeStatus:       {4, 4},
	typeEnvironment:  {HashSize, HashSize},
}
