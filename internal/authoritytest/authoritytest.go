// Package authoritytest makes certificates for tests, of members and of
// strangers.
package authoritytest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/internal/authority"
)

// Cluster is an authority with a folder for what it issues.
type Cluster struct {
	*authority.Authority
	t   testing.TB
	dir string
}

// Files are those of one member: the authority's certificate, its own, its key.
type Files struct{ CA, Cert, Key string }

// New makes an authority. Each is another one, whatever its name.
func New(t testing.TB, name string) *Cluster {
	t.Helper()
	a, err := authority.New(name, time.Now(), authority.AuthorityLife)
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{a, t, t.TempDir()}
	c.write("ca.crt", c.certificate())
	return c
}

func (c *Cluster) certificate() []byte {
	c.t.Helper()
	cert, _, err := c.PEM()
	if err != nil {
		c.t.Fatal(err)
	}
	return cert
}

func (c *Cluster) write(name string, data []byte) string {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// Member makes the files of a member.
func (c *Cluster) Member(name string) Files {
	c.t.Helper()
	return c.MemberFor(name, time.Now(), authority.MemberLife)
}

// MemberAs makes those of a member that may speak as some registrars only.
func (c *Cluster) MemberAs(name string, registrars ...param.RegistrarID) Files {
	c.t.Helper()
	cert, key, err := c.Issue(name, registrars, time.Now(), authority.MemberLife)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.pair(name, cert, key)
}

// MemberFor makes those of a member whose certificate is valid for a time.
func (c *Cluster) MemberFor(name string, from time.Time, life time.Duration) Files {
	c.t.Helper()
	cert, key, err := c.Issue(name, nil, from, life)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.pair(name, cert, key)
}

func (c *Cluster) pair(name string, cert, key []byte) Files {
	return Files{CA: filepath.Join(c.dir, "ca.crt"), Cert: c.write(name+".crt", cert), Key: c.write(name+".key", key)}
}

// SelfSigned makes those of a stranger who vouches for himself.
func (c *Cluster) SelfSigned(name string) Files {
	c.t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{c.Cluster()}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		c.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	f := c.pair(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	f.CA = f.Cert
	return f
}

// Trusting returns the files with this cluster's authority among those that the
// stranger trusts, so that a refusal is the other side's.
func (c *Cluster) Trusting(f Files) Files {
	c.t.Helper()
	own, err := os.ReadFile(f.CA)
	if err != nil {
		c.t.Fatal(err)
	}
	f.CA = c.write(filepath.Base(f.Cert)+".ca", bytes.Join([][]byte{own, c.certificate()}, nil))
	return f
}
