package cookie

import (
	"encoding/binary"
	"errors"
	"strconv"
	"testing"
)

type progress struct {
	Item  uint64
	Found []uint64
}

func TestCodecReadsWhatItWrote(t *testing.T) {
	c := Codec[progress]{Version: 2}
	data, err := c.Encode(progress{17, []uint64{2, 3}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Decode(data)
	if err != nil || got.Item != 17 || len(got.Found) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestCodecReadsEarlierVersions(t *testing.T) {
	old, err := Codec[uint64]{Version: 1}.Encode(17)
	if err != nil {
		t.Fatal(err)
	}
	c := Codec[progress]{Version: 2, Earlier: map[uint16]func([]byte) (progress, error){
		1: func(data []byte) (progress, error) {
			item, err := strconv.ParseUint(string(data), 10, 64)
			return progress{Item: item}, err
		},
	}}
	if got, err := c.Decode(old); err != nil || got.Item != 17 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestCodecRefusesWhatItCantRead(t *testing.T) {
	c := Codec[progress]{Version: 2}
	for name, data := range map[string][]byte{"Empty": nil, "OneOctet": {0}, "Later": {0, 3, '{', '}'}} {
		if _, err := c.Decode(data); !errors.Is(err, ErrVersion) {
			t.Errorf("%s: %v, want ErrVersion", name, err)
		}
	}
	if _, err := c.Decode([]byte{0, 2, 'x'}); err == nil || errors.Is(err, ErrVersion) {
		t.Errorf("broken JSON: %v", err)
	}
	if _, err := (Codec[func()]{}).Encode(nil); err == nil {
		t.Error("a function was encoded")
	}
}

// counter has an encoding of its own.
type counter uint64

func (c counter) MarshalBinary() ([]byte, error) {
	return binary.BigEndian.AppendUint64(nil, uint64(c)), nil
}

func (c *counter) UnmarshalBinary(data []byte) error {
	if len(data) != 8 {
		return errors.New("not 8 octets")
	}
	*c = counter(binary.BigEndian.Uint64(data))
	return nil
}

func TestCodecUsesTheTypesOwnEncoding(t *testing.T) {
	c := Codec[counter]{Version: 1}
	data, err := c.Encode(17)
	if err != nil || len(data) != versionLen+8 {
		t.Fatalf("%x, %v", data, err)
	}
	if got, err := c.Decode(data); err != nil || got != 17 {
		t.Errorf("%d, %v", got, err)
	}
}
