package tcp

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// Files names the files of a Credentials, all PEM.
type Files struct {
	CA   string // certificates of the authorities that vouch for peers
	Cert string // this end's certificate, with intermediate ones behind it
	Key  string // its private key
}

// Credentials prove to peers that this end belongs to a cluster, and tell whether
// they do: both ends show a certificate that an authority of the cluster has
// signed and that carries the cluster's name. Addresses and host names don't
// matter. Methods may be called concurrently.
//
// The files are read again when they have changed, before a handshake, and by
// Reload. What can't be used leaves the former ones in place.
type Credentials struct {
	files   Files
	cluster string
	// Changed takes the result of reading changed files: nil, or why the
	// former ones stay. May be nil; set it before the first use.
	Changed func(error)
	// Check may refuse changed files for the registrars that this end's new
	// certificate names, so that the former ones stay. May be nil; set it before
	// the first use.
	Check func(named []param.RegistrarID) error

	mu      sync.Mutex
	current loaded
	looked  time.Time // at the files
	failed  stamps    // of files that could not be used
}

// loaded is what the files say.
type loaded struct {
	client, server *tls.Config
	expires        time.Time
	named          []param.RegistrarID // by this end's certificate
	stamps         stamps
}

// stamps tell whether files have changed.
type stamps [3]struct {
	modified time.Time
	size     int64
}

// lookAgain is how often files are looked at, at most.
const lookAgain = time.Second

// LoadCredentials reads the files and checks that they fit together and name the
// cluster.
func LoadCredentials(files Files, cluster string) (*Credentials, error) {
	c := &Credentials{files: files, cluster: cluster}
	var err error
	if c.current, err = c.load(); err != nil {
		return nil, err
	}
	c.looked = time.Now()
	return c, nil
}

// Reload reads the files now.
func (c *Credentials) Reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	fresh, err := c.load()
	if err == nil {
		c.current = fresh
	}
	return err
}

// Expires returns when this end's certificate, or one it depends on, ends.
func (c *Credentials) Expires() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current.expires
}

// Registrars returns the registrars that this end's certificate names: those as which
// others let it speak. None: it may speak as any.
func (c *Credentials) Registrars() []param.RegistrarID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current.named
}

// configs returns those for the next handshake.
func (c *Credentials) configs() loaded {
	c.mu.Lock()
	current, changed := c.current, c.look()
	if changed != nil && *changed == nil {
		current = c.current
	}
	c.mu.Unlock()
	if changed != nil && c.Changed != nil {
		c.Changed(*changed)
	}
	return current
}

// look reads the files again if they have changed, and returns the result, nil
// when they have not. The mutex is held.
func (c *Credentials) look() *error {
	now := time.Now()
	if now.Sub(c.looked) < lookAgain {
		return nil
	}
	c.looked = now
	stamps, err := c.stamp()
	if stamps == c.current.stamps || stamps == c.failed {
		return nil
	}
	var fresh loaded
	if err == nil {
		fresh, err = c.load()
	}
	if err == nil {
		c.current = fresh
	} else {
		c.failed = stamps
	}
	return &err
}

func (c *Credentials) stamp() (stamps, error) {
	var out stamps
	var errs []error
	for i, name := range []string{c.files.CA, c.files.Cert, c.files.Key} {
		info, err := os.Stat(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out[i].modified, out[i].size = info.ModTime(), info.Size()
	}
	return out, errors.Join(errs...)
}

func (c *Credentials) load() (loaded, error) {
	stamps, err := c.stamp() // before the contents: a change between is found later
	if err != nil {
		return loaded{}, err
	}
	authorities, err := os.ReadFile(c.files.CA)
	if err != nil {
		return loaded{}, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authorities) {
		return loaded{}, fmt.Errorf("%s: no certificate in it", c.files.CA)
	}
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return loaded{}, fmt.Errorf("%s, %s: %w", c.files.Cert, c.files.Key, err)
	}
	expires, err := c.checkOwn(pair, roots)
	if err != nil {
		return loaded{}, fmt.Errorf("%s: %w", c.files.Cert, err)
	}
	named, err := transport.NamedRegistrars(pair.Leaf.URIs)
	if err == nil && c.Check != nil {
		err = c.Check(named)
	}
	if err != nil {
		return loaded{}, fmt.Errorf("%s: %w", c.files.Cert, err)
	}
	base := tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair},
		DynamicRecordSizingDisabled: true,
		// Each connection checks the certificates anew.
		SessionTicketsDisabled: true,
	}
	client, server := base.Clone(), base.Clone()
	client.RootCAs, client.ServerName = roots, c.cluster
	server.ClientCAs, server.ClientAuth = roots, tls.RequireAndVerifyClientCert
	client.VerifyConnection = readable
	server.VerifyConnection = func(s tls.ConnectionState) error {
		return errors.Join(s.PeerCertificates[0].VerifyHostname(c.cluster), readable(s))
	}
	return loaded{client, server, expires, named, stamps}, nil
}

// readable checks the names of registrars in the other end's certificate.
func readable(s tls.ConnectionState) error {
	if _, err := transport.NamedRegistrars(s.PeerCertificates[0].URIs); err != nil {
		return fmt.Errorf("%w: %w", errNames, err)
	}
	return nil
}

// checkOwn checks this end's certificate as peers will, in both roles, and
// returns when the chain ends.
func (c *Credentials) checkOwn(pair tls.Certificate, roots *x509.CertPool) (time.Time, error) {
	between := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return time.Time{}, err
		}
		between.AddCert(cert)
	}
	var expires time.Time
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		chains, err := pair.Leaf.Verify(x509.VerifyOptions{
			DNSName: c.cluster, Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage},
		})
		if err != nil {
			return time.Time{}, err
		}
		for _, cert := range chains[0] {
			if expires.IsZero() || cert.NotAfter.Before(expires) {
				expires = cert.NotAfter
			}
		}
	}
	return expires, nil
}
