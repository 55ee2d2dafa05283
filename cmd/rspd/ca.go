package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rserpool/asap/param"
	"rserpool/cmd/internal/cli"
	"rserpool/internal/authority"
	"rserpool/registrar"
	"rserpool/registrar/admin"
)

// Files of the authority in its folder.
const (
	authorityCert = "ca.crt"
	authorityKey  = "ca.key"
)

func caCommand() *cobra.Command {
	ca := &cobra.Command{
		Use: "ca", Short: "Make the certificates by which registrars know each other",
		Long: `Make the certificates by which registrars of a cluster know each other: 'ca init' once,
then 'ca issue' for each registrar. Whoever has one issued by the cluster's authority
may act as a registrar, from any address; nobody else may. One issued with --id lets its
owner speak as that registrar only; one without, as any. Any other authority will do
as well, if each certificate carries the cluster's name (--cluster) as DNS name and may
be used by servers and clients; it names a registrar by a URI among the alternative
names, such as rserpool://CLUSTER/registrar/0x0a0b0c0d.`,
	}
	ca.AddCommand(caInit(), caIssue())
	return ca
}

func dirFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "dir", "rserpool-ca", "folder of the authority")
}

// day24 is a day, for lifetimes.
const day24 = 24 * time.Hour

func daysFlag(cmd *cobra.Command, days *int, life time.Duration) {
	cmd.Flags().IntVar(days, "days", int(life/day24), "days for which the certificate is valid")
}

func lifetime(days int) (time.Duration, error) {
	if days < 1 || days > 36500 {
		return 0, cli.Exitf(cli.Usage, "days: %d is not between 1 and 36500", days)
	}
	return time.Duration(days) * day24, nil
}

func caInit() *cobra.Command {
	var dir, name string
	var days int
	cmd := &cobra.Command{
		Use: "init", Short: "Make the authority of a cluster", Args: cobra.NoArgs,
		Long: `Make the authority of a cluster, a certificate and a private key, in a folder that
only you can read. The key is needed to issue further certificates, by no registrar.`,
		Example: `  rspd ca init --name blue
  rspd ca issue one --id 1`,
	}
	dirFlag(cmd, &dir)
	cmd.Flags().StringVar(&name, "name", registrar.DefaultCluster, "name of the cluster, as --cluster of its registrars")
	daysFlag(cmd, &days, authority.AuthorityLife)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		life, err := lifetime(days)
		if err != nil {
			return err
		}
		a, err := authority.New(name, time.Now(), life)
		if err != nil {
			return cli.Exit(cli.Usage, err)
		}
		cert, key, err := a.PEM()
		if err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := writePair(dir, authorityCert, authorityKey, cert, key); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), `%s
    certificate of the authority of the cluster %q, until %s: every registrar needs a copy (--tls-ca)
%s
    its private key: keep it here, no registrar needs it
Next, for each registrar: rspd ca issue NAME --id IDENTIFIER --dir %s
`, filepath.Join(dir, authorityCert), name, day(a.Expires()), filepath.Join(dir, authorityKey), dir)
		return err
	}
	return cmd
}

// memberName is what can be a file's name everywhere.
var memberName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func caIssue() *cobra.Command {
	var dir string
	var days int
	var ids []string
	cmd := &cobra.Command{
		Use: "issue NAME", Short: "Make a registrar's certificate", Args: cobra.ExactArgs(1),
		Long: `Make a certificate and a private key for one registrar. NAME is for people: it names the
files and stands in the certificate, but need not be a host name, as addresses and host
names are not checked.

With --id the certificate is for the registrar of that identifier alone: who steals it
can take the place of no other. A registrar with such a certificate has that identifier
without being told. For rspctl issue one without --id.

To replace a certificate, move the old files away, issue it anew,
and copy the new ones over those of the registrar: it reads them by itself, at once on
SIGHUP.`,
		Example: `  rspd ca issue one --id 0x0a0b0c0d
  rspd ca issue one --id 1 --days 90 --dir /root/blue-ca`,
	}
	dirFlag(cmd, &dir)
	daysFlag(cmd, &days, authority.MemberLife)
	cmd.Flags().StringSliceVar(&ids, "id", nil, "identifier of the registrar that the certificate is for; repeatable (default: any)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var registrars []param.RegistrarID
		for _, text := range ids {
			id, err := admin.ParseID(text)
			if err != nil {
				return cli.Exit(cli.Usage, fmt.Errorf("id: %w", err))
			}
			registrars = append(registrars, param.RegistrarID(id))
		}
		life, err := lifetime(days)
		if err != nil {
			return err
		}
		name := args[0]
		if !memberName.MatchString(name) || name == "ca" {
			return cli.Exitf(cli.Usage, "name %q: letters, digits, dots, hyphens and underscores, at most 64, and not ca", name)
		}
		a, err := openAuthority(dir)
		if err != nil {
			return err
		}
		cert, key, err := a.Issue(name, registrars, time.Now(), life)
		if err != nil {
			return err
		}
		if err := writePair(dir, name+".crt", name+".key", cert, key); err != nil {
			return err
		}
		path := func(file string) string { return filepath.Join(dir, file) }
		_, err = fmt.Fprintf(cmd.OutOrStdout(), `%s
%s
    certificate and private key, the latter for the registrar's eyes only
Copy them and %s to the registrar's host and start it with
    rspd --cluster %s --tls-ca %s --tls-cert %s --tls-key %s ...
and the paths there.%s
`, path(name+".crt"), path(name+".key"), path(authorityCert), a.Cluster(), authorityCert, name+".crt", name+".key", whose(registrars))
		return err
	}
	return cmd
}

// whose says what a certificate is good for.
func whose(registrars []param.RegistrarID) string {
	if len(registrars) == 0 {
		return " To rspctl the same files give access to the ENRP port.\nWho has them may speak as any registrar (see --id)."
	}
	texts := make([]string, len(registrars))
	for i, id := range registrars {
		texts[i] = id.String()
	}
	return " Who has them may speak as registrar " + strings.Join(texts, ", ") + " only."
}

func openAuthority(dir string) (*authority.Authority, error) {
	cert, err := os.ReadFile(filepath.Join(dir, authorityCert))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no authority in %s (make one with 'rspd ca init'): %w", dir, err)
	}
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(filepath.Join(dir, authorityKey))
	if err != nil {
		return nil, err
	}
	a, err := authority.Parse(cert, key)
	if err != nil {
		return nil, fmt.Errorf("authority in %s: %w", dir, err)
	}
	return a, nil
}

// writePair writes a certificate and its key. Nothing is overwritten: if one of the
// files is there, neither is written.
func writePair(dir, certName, keyName string, cert, key []byte) error {
	keyPath, certPath := filepath.Join(dir, keyName), filepath.Join(dir, certName)
	if err := writeNew(keyPath, key, 0o600); err != nil {
		return err
	}
	if err := writeNew(certPath, cert, 0o644); err != nil {
		return errors.Join(err, os.Remove(keyPath))
	}
	return nil
}

func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", path, err), os.Remove(path))
	}
	return nil
}
