// Package authority makes the certificates of a cluster: one of its authority,
// and one for each member. All carry the cluster's name, by which members know
// each other, and perhaps the registrars as which a member may speak; addresses and
// host names are not in them.
package authority

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// Usual lifetimes.
const (
	AuthorityLife = 10 * 365 * 24 * time.Hour
	MemberLife    = 398 * 24 * time.Hour
)

// skew is how far clocks may be behind the one that issues.
const skew = time.Hour

// Authority is a cluster's certificate authority.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// CheckCluster tells whether a name can stand in certificates: at most 64 octets,
// of the form of a host name, in small letters.
func CheckCluster(name string) error {
	if name == "" || len(name) > 64 {
		return fmt.Errorf("cluster name of %d octets, not 1 to 64", len(name))
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return fmt.Errorf("cluster name %q: an address is no name", name)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return fmt.Errorf("cluster name %q: only small letters, digits, hyphens within, and dots between go into certificates", name)
		}
	}
	return nil
}

// New makes an authority with a new Ed25519 key.
func New(cluster string, now time.Time, life time.Duration) (*Authority, error) {
	if err := CheckCluster(cluster); err != nil {
		return nil, err
	}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: cluster, Organization: []string{"rserpool cluster authority"}},
		NotBefore: now.Add(-skew), NotAfter: now.Add(life),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:     true, BasicConstraintsValid: true, MaxPathLenZero: true,
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{cluster},
	}
	cert, err := sign(template, template, public, key)
	return &Authority{cert, key}, err
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial.Add(serial, big.NewInt(1))
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Parse reads an authority from what PEM gave.
func Parse(certificate, key []byte) (*Authority, error) {
	block, _ := pem.Decode(certificate)
	if block == nil || block.Type != pemCertificate {
		return nil, errors.New("no PEM certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	block, _ = pem.Decode(key)
	if block == nil || block.Type != pemKey {
		return nil, errors.New("no PEM private key")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private key of type %T can't sign", parsed)
	}
	own, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !own.Equal(cert.PublicKey) {
		return nil, errors.New("the private key is not that of the certificate")
	}
	if !cert.IsCA {
		return nil, errors.New("the certificate is not an authority's")
	}
	return &Authority{cert, signer}, nil
}

const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
)

// PEM returns the authority's certificate, which all members need, and its
// private key, which only issuing needs.
func (a *Authority) PEM() (certificate, key []byte, err error) { return encode(a.cert, a.key) }

func encode(cert *x509.Certificate, key crypto.Signer) ([]byte, []byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: cert.Raw}),
		pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

// Cluster returns the cluster's name.
func (a *Authority) Cluster() string { return a.cert.Subject.CommonName }

// Expires returns when the authority's certificate ends.
func (a *Authority) Expires() time.Time { return a.cert.NotAfter }

// Issue makes a certificate and a new Ed25519 key for a member, which ends with
// the authority's at the latest. The member's name is for people only. With registrars
// named, it may speak as one of these only.
func (a *Authority) Issue(name string, registrars []param.RegistrarID, now time.Time, life time.Duration) (certificate, key []byte, err error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	until := now.Add(life)
	if until.After(a.cert.NotAfter) {
		until = a.cert.NotAfter
	}
	var uris []*url.URL
	for _, id := range registrars {
		uris = append(uris, transport.RegistrarURI(a.Cluster(), id))
	}
	cert, err := sign(&x509.Certificate{
		Subject:   pkix.Name{CommonName: name, Organization: []string{"rserpool cluster member"}},
		NotBefore: now.Add(-skew), NotAfter: until,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{a.Cluster()}, URIs: uris, BasicConstraintsValid: true,
	}, a.cert, public, a.key)
	if err != nil {
		return nil, nil, err
	}
	return encode(cert, private)
}
