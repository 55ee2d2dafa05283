package cookie

import (
	"encoding"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

// ErrVersion says that the state has a version that this program can't read, such
// as that of an element with a later release. Test with errors.Is.
var ErrVersion = errors.New("session state of unknown version")

// versionLen is the length of the version before the state.
const versionLen = 2

// Codec puts a small session state into octets and back: two octets of version,
// then JSON, or what the type's own MarshalBinary makes. The version belongs to
// the meaning of T: count it up when an earlier program would misread the state.
//
// While elements of two releases are in one pool the later ones should still
// write what the earlier ones read.
type Codec[T any] struct {
	// Version is what Encode writes.
	Version uint16
	// Earlier turns the octets of earlier versions into the present state.
	Earlier map[uint16]func(data []byte) (T, error)
}

// Encode returns the state in octets.
func (c Codec[T]) Encode(state T) ([]byte, error) {
	var data []byte
	var err error
	if m, ok := any(state).(encoding.BinaryMarshaler); ok {
		data, err = m.MarshalBinary()
	} else {
		data, err = json.Marshal(state)
	}
	if err != nil {
		return nil, fmt.Errorf("session state: %w", err)
	}
	out := binary.BigEndian.AppendUint16(make([]byte, 0, versionLen+len(data)), c.Version)
	return append(out, data...), nil
}

// Decode reads what Encode wrote, here or in an earlier release. The error wraps
// ErrVersion when the version is neither Version nor in Earlier.
func (c Codec[T]) Decode(data []byte) (T, error) {
	var state T
	if len(data) < versionLen {
		return state, fmt.Errorf("session state of %d octets: %w", len(data), ErrVersion)
	}
	version, data := binary.BigEndian.Uint16(data), data[versionLen:]
	var err error
	switch earlier := c.Earlier[version]; {
	case version == c.Version:
		if u, ok := any(&state).(encoding.BinaryUnmarshaler); ok {
			err = u.UnmarshalBinary(data)
		} else {
			err = json.Unmarshal(data, &state)
		}
	case earlier != nil:
		state, err = earlier(data)
	default:
		err = ErrVersion
	}
	if err != nil {
		return state, fmt.Errorf("session state, version %d: %w", version, err)
	}
	return state, nil
}
