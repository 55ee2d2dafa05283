// Package cookie protects the session state that a pool element gives to a pool
// user and gets back from it after a failover (client-based state sharing: RFC
// 5352, section 3.8). The user keeps the cookie, so it must neither make one nor
// change it, and the elements of a pool must know each other's.
//
// A Sealer signs cookies (HMAC-SHA256) or encrypts them as well (AES-256-GCM).
// All elements of a pool share its keys. Bound into each cookie are the pool
// handle, the identifier of its key and the time it was sealed. A cookie is a
// bearer's token: whoever has it can resume the session until it is too old, so
// send it only where the user's data may go too.
//
// Codec puts a small state with a version number into octets.
package cookie

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"rserpool/asap/param"
)

// Errors of Open and Seal. They come wrapped with more detail; test with
// errors.Is.
var (
	// ErrForged: the cookie was changed, or made by somebody without the key.
	ErrForged = errors.New("forged cookie")
	// ErrTooOld: the cookie was sealed longer than MaxAge ago, or further than
	// MaxSkew in the future.
	ErrTooOld = errors.New("cookie out of date")
	// ErrForeign: the cookie is another pool's, or sealed with a key that is
	// not (or no longer) among Keys, or not by this package.
	ErrForeign = errors.New("foreign cookie")
	// ErrTooLong: the state is longer than MaxState.
	ErrTooLong = errors.New("session state too long")
)

// Bounds and defaults.
const (
	// MinSecret is the least length of a key's secret, in octets.
	MinSecret = 16
	// DefaultMaxAge is the default of Config.MaxAge.
	DefaultMaxAge = time.Hour
	// DefaultMaxSkew is the default of Config.MaxSkew.
	DefaultMaxSkew = time.Minute
	// DefaultMaxState is the default of Config.MaxState, in octets.
	DefaultMaxState = 16 << 10
	// LargestState is the upper limit of Config.MaxState: what fits into a
	// COOKIE message together with Overhead.
	LargestState = 65000
	// Overhead is by how many octets a cookie is longer than its state, at
	// most.
	Overhead = headerLen + max(sha256.Size, saltLen+tagLen)
)

// Key is a secret shared by the elements of a pool.
type Key struct {
	// ID tells the keys of a pool apart; it travels in the cookie.
	ID uint32
	// Secret is random, at least MinSecret octets, better 32.
	Secret []byte
}

// Config describes a Sealer. Keys and Pool are required; another zero field
// means its default.
type Config struct {
	// Keys are the keys to open cookies with; the first also seals. To
	// rotate, give all elements the new key as the second one, then make it
	// the first, and drop the old one MaxAge later.
	Keys []Key
	// Pool is the handle of the pool whose elements share the state. Others'
	// cookies are refused even when the key is the same.
	Pool param.PoolHandle
	// Encrypt hides the state from users and from those who listen. It costs
	// about a microsecond more per cookie. Default off: users can read the
	// state, but not change it.
	Encrypt bool
	// MaxAge is how old a cookie may be. A longer one lets a user come back
	// later, and lets old state be replayed for longer. Default 1 h.
	MaxAge time.Duration
	// MaxSkew is by how much the clocks of the elements may differ. Default
	// 1 min.
	MaxSkew time.Duration
	// MaxState bounds the state, in octets. Default 16384, at most 65000.
	MaxState int
}

// Validate names everything that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, err := derive(c.Keys); err != nil {
		wrong("%w", err)
	}
	if c.Pool == "" {
		wrong("Pool is missing")
	}
	if c.MaxAge < 0 {
		wrong("MaxAge is %v, must not be negative", c.MaxAge)
	}
	if c.MaxSkew < 0 {
		wrong("MaxSkew is %v, must not be negative", c.MaxSkew)
	}
	if c.MaxState < 0 || c.MaxState > LargestState {
		wrong("MaxState is %d, must be 0 to %d", c.MaxState, LargestState)
	}
	return errors.Join(errs...)
}

// Sealer makes cookies of session states and back. Its methods may be called
// concurrently.
type Sealer struct {
	cfg  Config
	pool [poolLen]byte
	keys atomic.Pointer[keyring]
}

// New makes a Sealer.
func New(cfg Config) (*Sealer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("cookies: %w", err)
	}
	for _, d := range []struct {
		field *time.Duration
		def   time.Duration
	}{{&cfg.MaxAge, DefaultMaxAge}, {&cfg.MaxSkew, DefaultMaxSkew}} {
		if *d.field == 0 {
			*d.field = d.def
		}
	}
	if cfg.MaxState == 0 {
		cfg.MaxState = DefaultMaxState
	}
	s := &Sealer{cfg: cfg}
	sum := sha256.Sum256([]byte(cfg.Pool))
	copy(s.pool[:], sum[:])
	return s, s.SetKeys(cfg.Keys...)
}

// SetKeys replaces Config.Keys while the Sealer is in use.
func (s *Sealer) SetKeys(keys ...Key) error {
	ring, err := derive(keys)
	if err != nil {
		return fmt.Errorf("cookies: %w", err)
	}
	s.keys.Store(ring)
	return nil
}

// keyring holds what is derived from the secrets.
type keyring struct {
	sealing uint32
	byID    map[uint32]*derived
}

type derived struct{ sign, encrypt []byte }

func derive(keys []Key) (*keyring, error) {
	if len(keys) == 0 {
		return nil, errors.New("Keys is empty")
	}
	ring := &keyring{sealing: keys[0].ID, byID: make(map[uint32]*derived, len(keys))}
	for i, k := range keys {
		if len(k.Secret) < MinSecret {
			return nil, fmt.Errorf("Keys[%d].Secret has %d octets, must have at least %d", i, len(k.Secret), MinSecret)
		}
		if ring.byID[k.ID] != nil {
			return nil, fmt.Errorf("Keys[%d]: another key has ID %d too", i, k.ID)
		}
		var d derived
		for _, use := range []struct {
			key  *[]byte
			info string
		}{{&d.sign, "rserpool cookie signature"}, {&d.encrypt, "rserpool cookie encryption"}} {
			key, err := hkdf.Key(sha256.New, k.Secret, nil, use.info, sha256.Size)
			if err != nil {
				return nil, fmt.Errorf("Keys[%d]: %w", i, err)
			}
			*use.key = key
		}
		ring.byID[k.ID] = &d
	}
	return ring, nil
}

// A cookie is
//
//	format(1) key ID(4) time(8) pool(8) | state | HMAC(32)             signed
//	format(1) key ID(4) time(8) pool(8) | salt(16) | state, tag(16)    encrypted
//
// with the time in milliseconds since 1970 and the beginning of the pool
// handle's SHA-256. Signature and tag cover all before them.
const (
	formatSigned    = 0xc1
	formatEncrypted = 0xc2

	keyAt     = 1
	timeAt    = 5
	poolAt    = 13
	poolLen   = 8
	headerLen = poolAt + poolLen
	saltLen   = 16
	tagLen    = 16
)

// Seal makes a cookie of a session's state. The error wraps ErrTooLong.
func (s *Sealer) Seal(state []byte) ([]byte, error) {
	if len(state) > s.cfg.MaxState {
		return nil, fmt.Errorf("%w: %d octets, at most %d", ErrTooLong, len(state), s.cfg.MaxState)
	}
	ring := s.keys.Load()
	key := ring.byID[ring.sealing]
	out := make([]byte, headerLen, len(state)+Overhead)
	out[0] = formatSigned
	if s.cfg.Encrypt {
		out[0] = formatEncrypted
	}
	binary.BigEndian.PutUint32(out[keyAt:], ring.sealing)
	binary.BigEndian.PutUint64(out[timeAt:], uint64(time.Now().UnixMilli()))
	copy(out[poolAt:], s.pool[:])
	if !s.cfg.Encrypt {
		return key.appendMAC(append(out, state...)), nil
	}
	out = out[:headerLen+saltLen]
	rand.Read(out[headerLen:]) // never fails
	gcm, err := key.cipher(out)
	if err != nil {
		return nil, fmt.Errorf("seal cookie: %w", err)
	}
	return gcm.Seal(out, zeroNonce[:], state, out), nil
}

// Open checks a cookie and returns the state in it, which may share the cookie's
// memory. The error wraps ErrForged, ErrTooOld or ErrForeign.
func (s *Sealer) Open(cookie []byte) ([]byte, error) {
	if len(cookie) < headerLen || cookie[0] != formatSigned && cookie[0] != formatEncrypted {
		return nil, fmt.Errorf("%w: none of this format", ErrForeign)
	}
	if len(cookie) > s.cfg.MaxState+Overhead {
		return nil, fmt.Errorf("%w: %d octets", ErrForeign, len(cookie))
	}
	if [poolLen]byte(cookie[poolAt:]) != s.pool {
		return nil, fmt.Errorf("%w: of another pool than %q", ErrForeign, s.cfg.Pool)
	}
	id := binary.BigEndian.Uint32(cookie[keyAt:])
	key := s.keys.Load().byID[id]
	if key == nil {
		return nil, fmt.Errorf("%w: key %d is not known here", ErrForeign, id)
	}
	state, err := key.open(cookie)
	if err != nil {
		return nil, err
	}
	stamp := binary.BigEndian.Uint64(cookie[timeAt:])
	age := time.Since(time.UnixMilli(int64(stamp)))
	if age > s.cfg.MaxAge || age < -s.cfg.MaxSkew {
		return nil, fmt.Errorf("%w: sealed %v ago, at most %v", ErrTooOld, age.Round(time.Millisecond), s.cfg.MaxAge)
	}
	return state, nil
}

func (d *derived) open(cookie []byte) ([]byte, error) {
	if cookie[0] == formatSigned {
		end := len(cookie) - sha256.Size
		if end < headerLen || !hmac.Equal(cookie, d.appendMAC(cookie[:end:end])) {
			return nil, fmt.Errorf("%w: wrong signature", ErrForged)
		}
		return cookie[headerLen:end:end], nil
	}
	const at = headerLen + saltLen
	if len(cookie) < at+tagLen {
		return nil, fmt.Errorf("%w: too short", ErrForged)
	}
	gcm, err := d.cipher(cookie[:at])
	if err != nil {
		return nil, fmt.Errorf("open cookie: %w", err)
	}
	state, err := gcm.Open(nil, zeroNonce[:], cookie[at:], cookie[:at])
	if err != nil {
		return nil, fmt.Errorf("%w: wrong tag", ErrForged)
	}
	return state, nil
}

// appendMAC appends the signature of b.
func (d *derived) appendMAC(b []byte) []byte {
	mac := hmac.New(sha256.New, d.sign)
	mac.Write(b)
	return mac.Sum(b)
}

// zeroNonce is the only nonce, as each cookie has a key of its own.
var zeroNonce [12]byte

// cipher returns the cipher of one cookie: its key is derived from the salt at
// the end of the header. Random nonces under one key would have to end after
// 2^32 cookies of all elements together.
func (d *derived) cipher(header []byte) (cipher.AEAD, error) {
	mac := hmac.New(sha256.New, d.encrypt)
	mac.Write(header)
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Raw is a Sealer's stand-in that protects nothing: the cookie is the state, for
// services whose cookies other programs make and read.
type Raw struct{}

// Seal returns the state.
func (Raw) Seal(state []byte) ([]byte, error) { return state, nil }

// Open returns the cookie.
func (Raw) Open(cookie []byte) ([]byte, error) { return cookie, nil }
