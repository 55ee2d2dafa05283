package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// etcdKinds: what a registration would be there, a key with a lease of its own, and
// one key written again and again.
var etcdKinds = []kind{
	{"lease + put", 2, 1, func(_ context.Context, address string, client, outstanding int) (link, error) {
		return openEtcd(address, client, outstanding, true)
	}},
	{"put", 1, 1, func(_ context.Context, address string, client, outstanding int) (link, error) {
		return openEtcd(address, client, outstanding, false)
	}},
}

// etcdWriter is a client of etcd's version 3 API: gRPC, of which it needs no more than
// unary calls with a few fields.
type etcdWriter struct {
	client *http.Client
	url    string
	key    []byte
	value  []byte
	number uint64
	lease  bool
}

// etcdValue is as long as what a registrar keeps of an element of this benchmark.
const etcdValue = 60

func openEtcd(address string, client, outstanding int, lease bool) (link, error) {
	if outstanding > 1 {
		return nil, errors.New("a client of etcd has one write outstanding")
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &etcdWriter{
		client: &http.Client{Transport: &http.Transport{Protocols: protocols}, Timeout: patience},
		url:    "http://" + address,
		key:    fmt.Appendf(nil, "registrations/%d/", client),
		value:  make([]byte, etcdValue),
		lease:  lease,
	}, nil
}

// Numbers of the fields that are used, from etcd's rpc.proto.
const (
	leaseGrantTTL   = 1
	leaseGrantID    = 2 // of the response
	putKey          = 1
	putValue        = 2
	putLease        = 3
	leaseLifetime   = 60 // seconds; soon gone when we are
	keyOctets       = 8
	protoVarint     = 0
	protoLengthed   = 2
	grpcHeader      = 5
	grpcMaxResponse = 1 << 16
)

// send leaves the work to receive. Nothing is undone: that is left to the leases.
func (e *etcdWriter) send(int) error { return nil }

func (e *etcdWriter) receive() (int, error) { return 1, e.write() }

func (e *etcdWriter) write() error {
	e.number++
	var lease uint64
	if e.lease {
		answer, err := e.call("etcdserverpb.Lease/LeaseGrant", appendVarint(nil, leaseGrantTTL, leaseLifetime))
		if err != nil {
			return err
		}
		if lease, err = varintField(answer, leaseGrantID); err != nil {
			return err
		}
	}
	key := e.key
	if e.lease {
		key = binary.BigEndian.AppendUint64(append(make([]byte, 0, len(key)+keyOctets), key...), e.number)
	}
	binary.BigEndian.PutUint64(e.value, e.number)
	put := appendBytes(appendBytes(nil, putKey, key), putValue, e.value)
	if lease != 0 {
		put = appendVarint(put, putLease, lease)
	}
	_, err := e.call("etcdserverpb.KV/Put", put)
	return err
}

func (e *etcdWriter) Close() error {
	e.client.CloseIdleConnections()
	return nil
}

// call makes one gRPC call and returns the message of the answer.
func (e *etcdWriter) call(method string, message []byte) ([]byte, error) {
	body := make([]byte, grpcHeader, grpcHeader+len(message))
	binary.BigEndian.PutUint32(body[1:], uint32(len(message)))
	request, err := http.NewRequest(http.MethodPost, e.url+"/"+method, bytes.NewReader(append(body, message...)))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("TE", "trailers")
	response, err := e.client.Do(request)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, grpcMaxResponse))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	status := response.Trailer.Get("Grpc-Status")
	if status == "" {
		status = response.Header.Get("Grpc-Status")
	}
	if status != "0" || len(answer) < grpcHeader {
		return nil, fmt.Errorf("etcd answers %s to %s: %s %s", response.Status, method, status, response.Trailer.Get("Grpc-Message"))
	}
	return answer[grpcHeader:], nil
}

func appendVarint(b []byte, field, value uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, field<<3|protoVarint), value)
}

func appendBytes(b []byte, field uint64, value []byte) []byte {
	b = binary.AppendUvarint(b, field<<3|protoLengthed)
	return append(binary.AppendUvarint(b, uint64(len(value))), value...)
}

// varintField finds a field that is a number in a message.
func varintField(b []byte, field uint64) (uint64, error) {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			break
		}
		value, m := binary.Uvarint(b[n:])
		if m <= 0 {
			break
		}
		b = b[n+m:]
		switch {
		case tag == field<<3|protoVarint:
			return value, nil
		case tag&7 == protoLengthed && value <= uint64(len(b)):
			b = b[value:]
		case tag&7 != protoVarint:
			return 0, fmt.Errorf("field of type %d", tag&7)
		}
	}
	return 0, fmt.Errorf("no field %d in etcd's answer", field)
}
