package cookie

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func key(id uint32) Key { return Key{ID: id, Secret: bytes.Repeat([]byte{byte(id)}, 32)} }

func sealer(t testing.TB, change func(*Config)) *Sealer {
	t.Helper()
	cfg := Config{Keys: []Key{key(1)}, Pool: "work"}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func seal(t testing.TB, s *Sealer, state string) []byte {
	t.Helper()
	c, err := s.Seal([]byte(state))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// both runs f for signed and for encrypted cookies.
func both(t *testing.T, f func(t *testing.T, encrypt func(*Config))) {
	t.Run("Signed", func(t *testing.T) { f(t, func(*Config) {}) })
	t.Run("Encrypted", func(t *testing.T) { f(t, func(c *Config) { c.Encrypt = true }) })
}

func TestAnotherElementOpensWhatOneSealed(t *testing.T) {
	both(t, func(t *testing.T, mode func(*Config)) {
		one, other := sealer(t, mode), sealer(t, mode)
		for _, state := range []string{"", "x", "item 17", strings.Repeat("s", DefaultMaxState)} {
			c := seal(t, one, state)
			if len(c) > len(state)+Overhead {
				t.Errorf("cookie of %d octets for %d of state, Overhead is %d", len(c), len(state), Overhead)
			}
			got, err := other.Open(c)
			if err != nil || string(got) != state {
				t.Errorf("state of %d octets came back as %d: %v", len(state), len(got), err)
			}
		}
	})
}

func TestOnlyEncryptionHidesTheState(t *testing.T) {
	const state = "the number of a credit card"
	if c := seal(t, sealer(t, nil), state); !bytes.Contains(c, []byte(state)) {
		t.Error("a signed cookie has not the state in clear")
	}
	s := sealer(t, func(c *Config) { c.Encrypt = true })
	a, b := seal(t, s, state), seal(t, s, state)
	if bytes.Contains(a, []byte(state[:8])) {
		t.Error("an encrypted cookie shows its state")
	}
	if bytes.Equal(a[headerLen:], b[headerLen:]) {
		t.Error("two encrypted cookies of one state are equal")
	}
}

func TestTHR_2_16_02_OneFlippedBitIsRefused(t *testing.T) {
	both(t, func(t *testing.T, mode func(*Config)) {
		s := sealer(t, mode)
		good := seal(t, s, "item 17")
		for bit := range len(good) * 8 {
			bad := bytes.Clone(good)
			bad[bit/8] ^= 1 << (bit % 8)
			_, err := s.Open(bad)
			if !errors.Is(err, ErrForged) && !errors.Is(err, ErrForeign) {
				t.Fatalf("bit %d flipped: %v", bit, err)
			}
			if bit/8 >= headerLen && !errors.Is(err, ErrForged) {
				t.Fatalf("bit %d of the state flipped: %v, want ErrForged", bit, err)
			}
		}
	})
}

func TestForgedCookiesAreRefused(t *testing.T) {
	both(t, func(t *testing.T, mode func(*Config)) {
		s := sealer(t, mode)
		good := seal(t, s, "item 17")
		thief := sealer(t, func(c *Config) { mode(c); c.Keys = []Key{{ID: 1, Secret: make([]byte, 32)}} })
		younger := bytes.Clone(good)
		binary.BigEndian.PutUint64(younger[timeAt:], binary.BigEndian.Uint64(good[timeAt:])+1)
		otherFormat := bytes.Clone(good)
		otherFormat[0] ^= formatSigned ^ formatEncrypted
		for name, bad := range map[string][]byte{
			"OtherSecret":  seal(t, thief, "item 17"),
			"OtherTime":    younger,
			"OtherFormat":  otherFormat,
			"CutShort":     good[:len(good)-1],
			"HeaderOnly":   good[:headerLen],
			"Longer":       append(bytes.Clone(good), 0),
			"WithoutState": append(bytes.Clone(good[:headerLen]), good[len(good)-tagLen:]...),
		} {
			if state, err := s.Open(bad); !errors.Is(err, ErrForged) {
				t.Errorf("%s: %q, %v, want ErrForged", name, state, err)
			}
		}
	})
}

func TestForeignCookiesAreRefused(t *testing.T) {
	both(t, func(t *testing.T, mode func(*Config)) {
		s := sealer(t, mode)
		for name, bad := range map[string][]byte{
			"OtherPool":  seal(t, sealer(t, func(c *Config) { mode(c); c.Pool = "play" }), "item 17"),
			"UnknownKey": seal(t, sealer(t, func(c *Config) { mode(c); c.Keys = []Key{key(2)} }), "item 17"),
			"Empty":      nil,
			"Rsplib":     append([]byte("<PP-TD1>"), make([]byte, 8)...),
			"TooLong":    append(seal(t, s, ""), make([]byte, DefaultMaxState+1)...),
		} {
			if state, err := s.Open(bad); !errors.Is(err, ErrForeign) {
				t.Errorf("%s: %q, %v, want ErrForeign", name, state, err)
			}
		}
	})
}

func TestAgeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sealer(t, func(c *Config) { c.MaxAge = time.Minute })
		c := seal(t, s, "item 17")
		time.Sleep(time.Minute)
		if _, err := s.Open(c); err != nil {
			t.Errorf("after just MaxAge: %v", err)
		}
		time.Sleep(2 * time.Millisecond)
		if _, err := s.Open(c); !errors.Is(err, ErrTooOld) {
			t.Errorf("replayed after MaxAge: %v, want ErrTooOld", err)
		}
	})
}

func TestClocksMayDiffer(t *testing.T) {
	s := sealer(t, nil)
	at := func(ahead time.Duration) []byte {
		c := seal(t, s, "item 17")
		c = c[:len(c)-32]
		binary.BigEndian.PutUint64(c[timeAt:], uint64(time.Now().Add(ahead).UnixMilli()))
		return s.keys.Load().byID[1].appendMAC(c)
	}
	if _, err := s.Open(at(DefaultMaxSkew - time.Second)); err != nil {
		t.Errorf("clock ahead by less than MaxSkew: %v", err)
	}
	if _, err := s.Open(at(DefaultMaxSkew + time.Minute)); !errors.Is(err, ErrTooOld) {
		t.Errorf("from the future: %v, want ErrTooOld", err)
	}
	if _, err := s.Open(at(-290 * 365 * 24 * time.Hour)); !errors.Is(err, ErrTooOld) {
		t.Errorf("from before our time: %v, want ErrTooOld", err)
	}
}

func TestKeysRotate(t *testing.T) {
	both(t, func(t *testing.T, mode func(*Config)) {
		s := sealer(t, mode)
		before := seal(t, s, "item 17")
		for _, step := range []struct {
			name   string
			keys   []Key
			before error
		}{
			{"Announced", []Key{key(1), key(2)}, nil},
			{"InUse", []Key{key(2), key(1)}, nil},
			{"OldOneDropped", []Key{key(2)}, ErrForeign},
		} {
			if err := s.SetKeys(step.keys...); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Open(before); !errors.Is(err, step.before) {
				t.Errorf("%s: the old cookie: %v, want %v", step.name, err, step.before)
			}
			c := seal(t, s, "item 18")
			if id := binary.BigEndian.Uint32(c[keyAt:]); id != step.keys[0].ID {
				t.Errorf("%s: sealed with key %d, want %d", step.name, id, step.keys[0].ID)
			}
			if _, err := s.Open(c); err != nil {
				t.Errorf("%s: a new cookie: %v", step.name, err)
			}
		}
		if err := s.SetKeys(); err == nil {
			t.Error("no key at all was accepted")
		}
		if _, err := s.Seal(nil); err != nil {
			t.Errorf("after SetKeys failed: %v", err)
		}
	})
}

func TestStateIsBounded(t *testing.T) {
	s := sealer(t, func(c *Config) { c.MaxState = 10 })
	if _, err := s.Seal(make([]byte, 11)); !errors.Is(err, ErrTooLong) {
		t.Errorf("11 octets: %v, want ErrTooLong", err)
	}
}

func TestValidateNamesEverything(t *testing.T) {
	err := Config{Keys: []Key{{Secret: []byte("short")}}, MaxAge: -1, MaxSkew: -1, MaxState: LargestState + 1}.Validate()
	for _, want := range []string{"Secret has 5 octets", "Pool", "MaxAge", "MaxSkew", "MaxState"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate says nothing of %s: %v", want, err)
		}
	}
	for name, keys := range map[string][]Key{"None": nil, "EqualIDs": {key(1), key(1)}} {
		if _, err := New(Config{Pool: "work", Keys: keys}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRawCookiesAreTheState(t *testing.T) {
	c, err := Raw{}.Seal([]byte("<PP-TD1>"))
	state, errOpen := Raw{}.Open(c)
	if string(c) != "<PP-TD1>" || string(state) != "<PP-TD1>" || err != nil || errOpen != nil {
		t.Errorf("%q, %q, %v, %v", c, state, err, errOpen)
	}
}

// FuzzOpen checks that nothing but what was sealed is opened.
func FuzzOpen(f *testing.F) {
	signing, encrypting := sealer(f, nil), sealer(f, func(c *Config) { c.Encrypt = true })
	for _, s := range []*Sealer{signing, encrypting} {
		c := seal(f, s, "item 17")
		f.Add(c)
		f.Add(c[:headerLen])
		f.Add(c[:len(c)-1])
	}
	f.Add([]byte("<PP-TD1>"))
	f.Fuzz(func(t *testing.T, c []byte) {
		for _, s := range []*Sealer{signing, encrypting} {
			state, err := s.Open(c)
			switch {
			case err == nil && string(state) != "item 17":
				t.Errorf("%x was opened: %x", c, state)
			case err != nil && !errors.Is(err, ErrForged) && !errors.Is(err, ErrForeign) && !errors.Is(err, ErrTooOld):
				t.Errorf("%x: untyped error %v", c, err)
			}
		}
	})
}

func BenchmarkSealOpen(b *testing.B) {
	for name, encrypt := range map[string]bool{"Signed": false, "Encrypted": true} {
		b.Run(name, func(b *testing.B) {
			s := sealer(b, func(c *Config) { c.Encrypt = encrypt })
			state := make([]byte, 100)
			for b.Loop() {
				c, err := s.Seal(state)
				if err == nil {
					_, err = s.Open(c)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
