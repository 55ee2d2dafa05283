package transport

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"rserpool/asap/param"
)

// Named is a Conn whose other end has shown a certificate.
type Named interface {
	// Registrars returns the registrars as which the other end may speak: those
	// that its certificate names. None: it may speak as any.
	Registrars() []param.RegistrarID
}

// CheckIdentity returns an error if the other end of a connection may not speak as a
// registrar, because its certificate names others.
func CheckIdentity(c Conn, id param.RegistrarID) error {
	if n, ok := c.(Named); ok {
		return CheckRegistrar(n.Registrars(), id)
	}
	return nil
}

// CheckRegistrar is CheckIdentity for the registrars that a certificate names.
func CheckRegistrar(named []param.RegistrarID, id param.RegistrarID) error {
	if len(named) == 0 || slices.Contains(named, id) {
		return nil
	}
	texts := make([]string, len(named))
	for i, n := range named {
		texts[i] = n.String()
	}
	return fmt.Errorf("the certificate is for registrar %s, not for %s", strings.Join(texts, ", "), id)
}

// A certificate names a registrar by a URI among its alternative names: the cluster, and
// the identifier, hexadecimal with 0x or decimal, as in
// rserpool://blue/registrar/0x0a0b0c0d.
const (
	registrarScheme = "rserpool"
	registrarPath   = "/registrar/"
)

// RegistrarURI returns the URI by which a certificate names a registrar.
func RegistrarURI(cluster string, id param.RegistrarID) *url.URL {
	return &url.URL{Scheme: registrarScheme, Host: cluster, Path: registrarPath + id.String()}
}

// NamedRegistrars reads the registrars that a certificate names among its URIs. One
// that can't be read is an error, so that it is not taken for none.
func NamedRegistrars(uris []*url.URL) ([]param.RegistrarID, error) {
	var out []param.RegistrarID
	for _, u := range uris {
		if u.Scheme != registrarScheme {
			continue
		}
		text, ok := strings.CutPrefix(u.Path, registrarPath)
		id, err := strconv.ParseUint(text, 0, 32)
		if !ok || err != nil || id == 0 {
			return nil, fmt.Errorf("certificate with the name %q, which is no registrar's", u)
		}
		out = append(out, param.RegistrarID(id))
	}
	return out, nil
}
