package registrar

import (
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
)

// Refusals counts and logs those who were not let in to the ports of registrars,
// as they could not prove that they belong to the cluster.
type Refusals struct {
	log    logrus.FieldLogger
	notice notice
	count  *prometheus.CounterVec
}

// NewRefusals returns one that logs to log, no more than is bearable.
func NewRefusals(log logrus.FieldLogger) *Refusals {
	return &Refusals{log: log, count: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rserpool_handshake_failures_total",
		Help: "TLS handshakes with those who dialled that failed, and ENRP connections over which a registrar spoke as another than its certificate is for.",
	}, []string{"reason"})}
}

// expiryGauge shows when the registrar's certificate ends.
func expiryGauge(expires func() time.Time) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rserpool_certificate_expiry_timestamp_seconds", Help: "When the registrar's certificate ends.",
	}, func() float64 { return float64(expires().Unix()) })
}

// Refused notes one. reason is a word of a small number. It may be called
// concurrently.
func (r *Refusals) Refused(remote netip.AddrPort, reason string, err error) {
	r.count.WithLabelValues(reason).Inc()
	r.notice.log(r.log.WithError(err).WithFields(logrus.Fields{"peer": remote.Addr().String(), "reason": reason}).Warn,
		"somebody was not let in to a port of registrars", time.Now())
}
